"""What happens before anything is assembled: includes, macros, conditions, repetition."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rombuilder.errors import AssemblyError
from rombuilder.macros import MAX_DEPTH, Macro, expand, loop_values
from rombuilder.origin import Origin
from rombuilder.source_text import Statement, read_source, split_arguments, split_label

__all__ = ["Preprocessor"]

_MAX_REPEAT = 1 << 16
_CONDITIONS = frozenset({".if", ".ifdef", ".ifndef", ".ifnotdef", ".ifb", ".ifnb", ".ifc", ".ifnc"})
_BLOCKS = {".macro": ".endm", ".rept": ".endr", ".irp": ".endr"}
_STARTS = {
    ".endm": frozenset({".macro"}),
    ".endr": frozenset({".rept", ".irp"}),
}


@dataclass(slots=True)
class _Condition:
    origin: Origin
    active: bool
    taken: bool
    reachable: bool
    """Is the code around this condition assembled at all?"""
    has_else: bool = False


@dataclass(slots=True)
class Preprocessor:
    """Turns the statements of a file into those to assemble.

    `number` computes an expression of symbols known so far, `defined` says whether a
    symbol is known. Labels come out as statements of their own. All errors are
    `AssemblyError`, or `BuildError` for files that cannot be read.
    """

    include_dirs: Sequence[Path]
    number: Callable[[str, Origin], int]
    defined: Callable[[str], bool]
    _macros: dict[str, Macro] = field(default_factory=dict)
    _queue: deque[Statement] = field(default_factory=deque)
    _conditions: list[_Condition] = field(default_factory=list)
    _serial: int = 0

    def run(self, statements: list[Statement]) -> Iterator[Statement]:
        """The statements to assemble, in order."""
        self._queue.extend(statements)
        while self._queue:
            statement = self._queue.popleft()
            label, rest = split_label(statement.text)
            if label is not None:
                if self._active:
                    yield Statement(f"{label}:", statement.origin)
                if rest:
                    self._queue.appendleft(Statement(rest, statement.origin))
            elif not self._condition(statement) and self._active and not self._block(statement):
                yield statement
        if self._conditions:
            raise AssemblyError(self._conditions[-1].origin, ".if without .endif")

    @property
    def _active(self) -> bool:
        return not self._conditions or self._conditions[-1].active

    def _condition(self, statement: Statement) -> bool:
        """Follow `.if` and its kin; true when the statement was one."""
        word, origin = statement.word, statement.origin
        if word in _CONDITIONS:
            reachable = self._active
            holds = reachable and self._holds(statement)
            self._conditions.append(_Condition(origin, holds, holds, reachable))
            return True
        if word not in (".else", ".elseif", ".endif"):
            return False
        if not self._conditions:
            raise AssemblyError(origin, f"{word} without .if")
        condition = self._conditions[-1]
        if word == ".endif":
            self._conditions.pop()
            return True
        if condition.has_else:
            raise AssemblyError(origin, f"{word} after .else")
        condition.has_else = word == ".else"
        condition.active = (
            condition.reachable
            and not condition.taken
            and (word == ".else" or self.number(statement.rest, origin) != 0)
        )
        condition.taken |= condition.active
        return True

    def _holds(self, statement: Statement) -> bool:
        rest = statement.rest
        match statement.word:
            case ".if":
                return self.number(rest, statement.origin) != 0
            case ".ifdef":
                return self.defined(rest)
            case ".ifb":
                return not rest.strip('"')
            case ".ifnb":
                return bool(rest.strip('"'))
            case ".ifc" | ".ifnc" as word:
                texts = [text.strip("'\"") for text in split_arguments(rest)]
                if len(texts) != 2:
                    raise AssemblyError(statement.origin, f"{word} compares two texts")
                return (texts[0] == texts[1]) == (word == ".ifc")
        return not self.defined(rest)

    def _block(self, statement: Statement) -> bool:
        """Expand whatever stands for other statements; true when the statement did."""
        word, origin = statement.word, statement.origin
        if word in self._macros:
            macro = self._macros[word]
            self._insert(macro.body, macro.bind(statement), origin, f"in macro {word}")
        elif word == ".macro":
            self._define(statement)
        elif word == ".rept":
            self._repeat(statement)
        elif word == ".irp":
            name, values = loop_values(statement.rest)
            body = tuple(self._body(statement))
            for value in reversed(values):
                self._insert(body, {name: value}, origin, f"in .irp {name}={value}")
        elif word == ".include":
            self._include(statement)
        elif word in _STARTS:
            raise AssemblyError(origin, f"{word} without {' or '.join(sorted(_STARTS[word]))}")
        else:
            return False
        return True

    def _define(self, statement: Statement) -> None:
        macro = Macro.define(statement, self._body(statement))
        if macro.name in self._macros:
            first = self._macros[macro.name].origin.place
            raise AssemblyError(
                statement.origin, f"macro {macro.name} is already defined at {first}"
            )
        self._macros[macro.name] = macro

    def _repeat(self, statement: Statement) -> None:
        count = self.number(statement.rest, statement.origin)
        if not 0 <= count <= _MAX_REPEAT:
            raise AssemblyError(statement.origin, f".rept {count}: expected 0 to {_MAX_REPEAT}")
        body = tuple(self._body(statement))
        for _ in range(count):
            self._insert(body, {}, statement.origin, "in .rept")

    def _insert(
        self, body: tuple[Statement, ...], values: dict[str, str], origin: Origin, reason: str
    ) -> None:
        self._queue.extendleft(reversed(expand(body, values, self._serial, origin, reason)))
        self._serial += 1

    def _body(self, header: Statement) -> list[Statement]:
        """Take the statements up to the end of the block that `header` opens."""
        end = _BLOCKS[header.word]
        starts = _STARTS[end]
        body: list[Statement] = []
        depth = 1
        while self._queue:
            statement = self._queue.popleft()
            word = split_label(statement.text)[1].split(None, 1)[:1]
            if word and word[0] in starts:
                depth += 1
            elif word == [end]:
                depth -= 1
                if depth == 0:
                    return body
            body.append(statement)
        raise AssemblyError(header.origin, f"{header.word} without {end}")

    def _include(self, statement: Statement) -> None:
        origin = statement.origin
        name = statement.rest
        if len(name) < 3 or name[0] != '"' or name[-1] != '"':
            raise AssemblyError(origin, f'.include wants a "file name", not {name or "nothing"}')
        name = name[1:-1]
        folders = [origin.path.parent, *self.include_dirs]
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is None:
            looked = ", ".join(str(folder) for folder in folders)
            raise AssemblyError(origin, f"cannot find {name!r} in {looked}")
        step: Origin | None = origin
        while step is not None:
            if step.path.resolve() == path.resolve() and not step.reason.startswith("in "):
                raise AssemblyError(origin, f"{name} includes itself")
            step = step.parent
        if origin.depth >= MAX_DEPTH:
            raise AssemblyError(origin, f"includes nested more than {MAX_DEPTH} deep")
        self._queue.extendleft(reversed(read_source(path, origin, "included")))
