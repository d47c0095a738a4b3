"""The assembler front end: AT&T source in, relocatable object out."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from linker.objects import ObjectFile
from rombuilder.directives import assemble_directive
from rombuilder.encoder import Encoder
from rombuilder.errors import AssemblyError
from rombuilder.expression import ExpressionError
from rombuilder.instructions import assemble_instruction
from rombuilder.layout import finish
from rombuilder.preprocessor import Preprocessor
from rombuilder.source_text import Statement, read_source, split_label, split_statements
from rombuilder.unit import Unit

__all__ = ["assemble", "assemble_text"]

_ASSIGNMENT = re.compile(r"([A-Za-z_.][A-Za-z0-9_.$]*)\s*=(?!=)\s*(.*)$", re.DOTALL)

_encoder = Encoder()


def assemble(
    source: Path, *, symbols: Mapping[str, int], include_dirs: Sequence[Path] = ()
) -> ObjectFile:
    """Assemble a file into an object named after it (`mmu.S` gives `mmu.o`).

    `symbols` are predefined numbers, usable in `.if` too. Raises `AssemblyError`,
    or `BuildError` for a file that cannot be read.
    """
    return _assemble(read_source(source), f"{source.stem}.o", symbols, include_dirs)


def assemble_text(
    text: str,
    *,
    symbols: Mapping[str, int] | None = None,
    include_dirs: Sequence[Path] = (),
    name: str = "text.S",
) -> ObjectFile:
    """Assemble a text that goes by the file name `name`; raises as `assemble`."""
    path = Path(name)
    statements = list(split_statements(text, path))
    return _assemble(statements, f"{path.stem}.o", symbols or {}, include_dirs)


def _assemble(
    statements: list[Statement],
    name: str,
    symbols: Mapping[str, int],
    include_dirs: Sequence[Path],
) -> ObjectFile:
    unit = Unit(symbols)
    preprocessor = Preprocessor(include_dirs, unit.number, unit.defined)
    for statement in preprocessor.run(statements):
        try:
            _statement(unit, statement)
        except ExpressionError as error:
            raise AssemblyError(statement.origin, str(error)) from None
    return finish(unit, name)


def _statement(unit: Unit, statement: Statement) -> None:
    label, _ = split_label(statement.text)
    if label is not None:
        unit.label(label, statement.origin)
        return
    assignment = _ASSIGNMENT.match(statement.text)
    if assignment is not None:
        unit.assign(assignment[1], assignment[2], statement.origin)
    elif statement.word.startswith("."):
        assemble_directive(unit, statement)
    else:
        assemble_instruction(unit, _encoder, statement)
