"""One source file while it is assembled: its sections, labels and symbols."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from linker.objects import Binding, SectionFlag, SymbolKind
from rombuilder.errors import AssemblyError
from rombuilder.expression import (
    Expression,
    ExpressionError,
    Name,
    Value,
    names_in,
    parse,
    substitute,
)
from rombuilder.fragments import Fixup, SectionDraft
from rombuilder.origin import Origin

__all__ = ["Label", "Unit"]

_A, _W, _X = SectionFlag.ALLOC, SectionFlag.WRITE, SectionFlag.EXEC
_KNOWN_SECTIONS = {
    ".text": (_A | _X, False),
    ".header": (_A | _X, False),
    ".rodata": (_A, False),
    ".data": (_A | _W, False),
    ".bss": (_A | _W, True),
}


@dataclass(frozen=True, slots=True)
class Label:
    """A place: a fragment of a section and an offset into it."""

    section: str
    fragment: int
    offset: int
    origin: Origin


@dataclass(slots=True)
class Unit:
    """The state of one assembly. Problems are raised as `AssemblyError`."""

    predefined: Mapping[str, int]
    mode: int = 32
    sections: dict[str, SectionDraft] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)
    assigned: dict[str, Expression] = field(default_factory=dict)
    """Symbols of `.set`, with the symbols known at that point already put in."""
    assigned_at: dict[str, Origin] = field(default_factory=dict)
    bindings: dict[str, Binding] = field(default_factory=dict)
    kinds: dict[str, SymbolKind] = field(default_factory=dict)
    sizes: dict[str, tuple[Expression, Origin]] = field(default_factory=dict)
    _current: str = ".text"
    _locals: dict[str, int] = field(default_factory=dict)
    _here: int = 0

    def __post_init__(self) -> None:
        self.enter(".text", None, nobits=False)

    @property
    def section(self) -> SectionDraft:
        """The section that statements go to."""
        return self.sections[self._current]

    def enter(
        self,
        name: str,
        flags: SectionFlag | None,
        *,
        nobits: bool,
        origin: Origin | None = None,
    ) -> None:
        """Continue in a section; without flags its name says what it is."""
        draft = self.sections.get(name)
        if draft is None:
            if flags is None:
                known = _KNOWN_SECTIONS.get("." + name.lstrip(".").split(".", 1)[0])
                if known is None:
                    assert origin is not None  # noqa: S101 (only .text has no origin)
                    raise AssemblyError(
                        origin, f'section {name} needs flags, such as .section {name},"a"'
                    )
                flags, nobits = known
            draft = self.sections[name] = SectionDraft(name, flags, nobits)
        elif flags is not None and (flags, nobits) != (draft.flags, draft.nobits):
            assert origin is not None  # noqa: S101 (explicit flags come from a statement)
            raise AssemblyError(origin, f"section {name} had other flags or type before")
        self._current = name

    def label(self, name: str, origin: Origin) -> None:
        """Define a label here; a number starts a new local label."""
        if name.isdigit():
            count = self._locals[name] = self._locals.get(name, 0) + 1
            name = self._local_name(name, count)
        if name in self.labels:
            first = self.labels[name].origin.place
            raise AssemblyError(origin, f"label {name} is already defined at {first}")
        if name in self.assigned or name in self.predefined:
            raise AssemblyError(origin, f"{name} is a symbol with a value, it cannot be a label")
        self.labels[name] = self._place(origin)

    def assign(self, name: str, text: str, origin: Origin) -> None:
        """`.set name, text`."""
        if name in self.labels:
            first = self.labels[name].origin.place
            raise AssemblyError(origin, f"{name} is a label, defined at {first}")
        if name in self.predefined:
            raise AssemblyError(origin, f"{name} is predefined, it cannot be set")
        expression = self.expression(text, origin)
        expression = substitute(expression, self.assigned)
        if name in names_in(expression):
            raise AssemblyError(origin, f"{name} is set to a value that depends on itself")
        self.assigned[name] = expression
        self.assigned_at[name] = origin

    def expression(self, text: str, origin: Origin) -> Expression:
        """Read an expression; local labels and "." get the meaning they have here."""
        try:
            expression = parse(text, self._local)
        except ExpressionError as error:
            raise AssemblyError(origin, str(error)) from None
        if "." in names_in(expression):
            self._here += 1
            name = f".here@{self._here}"
            self.labels[name] = self._place(origin)
            expression = substitute(expression, {".": Name(name)})
        return expression

    def known(self, expression: Expression) -> int | None:
        """The number that the expression is already, or None while it depends on labels."""
        names = names_in(expression)
        values: dict[str, Expression] = {}
        for name in names:
            if name in self.assigned:
                values[name] = self.assigned[name]
            elif name not in self.predefined:
                return None
        whole = substitute(expression, values)
        if not names_in(whole) <= self.predefined.keys():
            return None
        return Value.of(whole, lambda name: Value(self.predefined[name])).constant

    def number(self, text: str, origin: Origin) -> int:
        """Compute an expression that must be known by now."""
        expression = self.expression(text, origin)
        try:
            value = self.known(expression)
        except ExpressionError as error:
            raise AssemblyError(origin, str(error)) from None
        if value is None:
            unknown = sorted(
                name
                for name in names_in(substitute(expression, self.assigned))
                if name not in self.predefined
            )
            raise AssemblyError(
                origin, f"{text.strip()!r} must be known here, but {', '.join(unknown)} is not"
            )
        return value

    def defined(self, name: str) -> bool:
        """Is the symbol known at this point?"""
        return name in self.predefined or name in self.assigned or name in self.labels

    def emit(
        self, data: bytes, origin: Origin, fields: list[tuple[int, int, Expression]] | None = None
    ) -> None:
        """Append bytes; `fields` are (offset, width, expression) of what is not known yet."""
        if self.section.nobits:
            raise AssemblyError(origin, f"section {self._current} holds no bytes, only space")
        tail = self.section.tail()
        start = len(tail.data)
        tail.data += data
        for offset, width, expression in fields or ():
            tail.fixups.append(Fixup(start + offset, width, expression, origin))

    def _place(self, origin: Origin) -> Label:
        tail = self.section.tail()
        return Label(self._current, len(self.section.fragments) - 1, len(tail.data), origin)

    @staticmethod
    def _local_name(number: str, count: int) -> str:
        return f"{int(number)}@{count}"

    def _local(self, token: str) -> str:
        number, direction = token[:-1], token[-1]
        count = self._locals.get(number, 0) + (direction == "f")
        if count == 0:
            raise ExpressionError(f"there is no label {number}: before this line")
        return self._local_name(number, count)
