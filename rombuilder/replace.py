"""Calls of a ROM given other functions: objects from elsewhere, and the rows that name them.

A row of the table of offers (rom_src/dispatch.S) is call number, kind of patch, features that
the host must grant, and the function's offset in the image, which is a relocation.
"""

from collections.abc import Mapping
from pathlib import Path

from linker.objects import Binding, ObjectFile, Relocation, RelocationKind, Symbol
from rombuilder.assembler import assemble
from rombuilder.errors import BuildError
from rombuilder.sources import rom_dir
from vmi.calls import call_named
from vmi.symbols import assembler_symbols

__all__ = ["load_object", "replace_calls"]

_TABLE = "offers"
_ROW_SIZE = 6
_FEATURES, _FUNCTION = 2, 4


def load_object(path: Path) -> ObjectFile:
    """An ELF object for i386, or AT&T source (`*.S`) with the interface's symbols.

    Raises `BuildError` or `linker.errors.ObjectError`.
    """
    if path.suffix == ".S":
        return assemble(path, symbols=assembler_symbols(), include_dirs=[path.parent, rom_dir()])
    # LIEF takes longer to load than the ROM to build.
    from linker.elf_reader import read_elf  # noqa: PLC0415

    return read_elf(path)


def replace_calls(dispatch: ObjectFile, replacements: Mapping[str, str]) -> None:
    """Let calls, by name, be served by the functions of these symbols.

    The kind of patch stays, and the function must keep the call's convention
    (`vmi.calls`). It is offered whatever features the host grants. Raises `BuildError`
    for a call that does not exist or that the ROM does not offer.
    """
    table = dispatch.symbol(_TABLE)
    section = table.section
    assert section is not None  # noqa: S101 (it is a label)
    wanted: dict[str, Symbol] = {}
    for call, name in replacements.items():
        try:
            number = call_named(call).number
        except KeyError:
            raise BuildError(f"cannot replace {call!r}: there is no such call") from None
        rows = range(table.value, len(section.data) - _ROW_SIZE + 1, _ROW_SIZE)
        row = next((at for at in rows if section.data[at] == number), None)
        if row is None:
            raise BuildError(f"cannot replace {call}: this ROM does not offer it (see --calls all)")
        symbol = wanted.setdefault(name, Symbol(name, binding=Binding.GLOBAL))
        field = row + _FUNCTION
        data = bytearray(section.data)
        data[row + _FEATURES : row + _FUNCTION] = bytes(_FUNCTION - _FEATURES)
        section.data = bytes(data)
        section.relocations = [
            relocation for relocation in section.relocations if relocation.offset != field
        ]
        section.relocations.append(Relocation(field, RelocationKind.R_386_16, symbol))
    section.relocations.sort(key=lambda relocation: relocation.offset)
    dispatch.symbols += wanted.values()
