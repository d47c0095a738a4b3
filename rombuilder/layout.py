"""From fragments to an object: every fragment gets its place, then every field its value."""

from dataclasses import dataclass, field
from itertools import accumulate

from linker.objects import (
    Binding,
    ObjectFile,
    Relocation,
    RelocationKind,
    Section,
    SectionFlag,
    Symbol,
    SymbolKind,
)
from rombuilder.directives import check_range
from rombuilder.errors import AssemblyError
from rombuilder.expression import Expression, ExpressionError, Value
from rombuilder.fragments import Align, Branch, Bytes, Fixup, Fragment, Org, SectionDraft, Space
from rombuilder.origin import Origin
from rombuilder.unit import Unit

__all__ = ["finish"]

_SPARE_ROUNDS = 50
_MAX_SECTION = 1 << 24
"""Bytes; a bigger section is a mistyped count."""

_ABSOLUTE = {
    4: RelocationKind.R_386_32,
    2: RelocationKind.R_386_16,
    1: RelocationKind.R_386_8,
}
_RELATIVE = {
    4: RelocationKind.R_386_PC32,
    2: RelocationKind.R_386_PC16,
    1: RelocationKind.R_386_PC8,
}

# The long no-operations that the Intel and AMD manuals recommend, by length.
_NOPS = tuple(
    bytes.fromhex(code)
    for code in (
        "", "90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000",
        "0f1f8000000000", "0f1f840000000000", "660f1f840000000000",
    )
)  # fmt: skip


def _nops(count: int, mode: int) -> bytes:
    if mode == 16:
        return b"\x90" * count
    longest = len(_NOPS) - 1
    return _NOPS[longest] * (count // longest) + _NOPS[count % longest]


@dataclass(slots=True)
class _Layout:
    unit: Unit
    sizes: dict[str, list[int]] = field(default_factory=dict)
    starts: dict[str, list[int]] = field(default_factory=dict)
    resolving: list[str] = field(default_factory=list)

    def resolve(self, name: str) -> Value:
        """What a name stands for, with the present places of fragments."""
        unit = self.unit
        if name in unit.predefined:
            return Value(unit.predefined[name])
        if name in unit.labels:
            label = unit.labels[name]
            offset = self.starts[label.section][label.fragment] + label.offset
            return Value(offset, ((("section", label.section), 1),))
        if name in unit.assigned:
            if name in self.resolving:
                raise ExpressionError(f"{name} is set to a value that depends on itself")
            self.resolving.append(name)
            try:
                return Value.of(unit.assigned[name], self.resolve)
            finally:
                self.resolving.pop()
        return Value(0, ((("symbol", name), 1),))

    def value(self, expression: Expression, origin: Origin) -> Value:
        try:
            return Value.of(expression, self.resolve)
        except ExpressionError as error:
            raise AssemblyError(origin, str(error)) from None

    def settle(self) -> None:
        """Place all fragments; branches grow until they reach."""
        for draft in self.unit.sections.values():
            self.sizes[draft.name] = [_initial_size(fragment) for fragment in draft.fragments]
            self._accumulate(draft)
        fragments = [f for draft in self.unit.sections.values() for f in draft.fragments]
        # Every round but a few lets a branch grow, and none ever shrinks. What can still
        # move for ever is a filling that depends on itself.
        fillings = [f.origin for f in fragments if isinstance(f, Org | Space)]
        for _ in range(_SPARE_ROUNDS + sum(isinstance(f, Branch) for f in fragments)):
            changed = [self._round(draft) for draft in self.unit.sections.values()]
            if not any(changed):
                break
        else:
            raise AssemblyError(fillings[0], "the layout never settles")
        for draft in self.unit.sections.values():
            for fragment, size in zip(draft.fragments, self.sizes[draft.name], strict=True):
                if size < 0 and isinstance(fragment, Org | Space):
                    what = ".org moves back" if isinstance(fragment, Org) else "negative count,"
                    raise AssemblyError(fragment.origin, f"{what} by {-size} bytes")

    def _accumulate(self, draft: SectionDraft) -> bool:
        starts = list(accumulate(self.sizes[draft.name], initial=0))
        changed = starts != self.starts.get(draft.name)
        self.starts[draft.name] = starts
        return changed

    def _round(self, draft: SectionDraft) -> bool:
        """Measure a section again; true when something moved."""
        sizes = self.sizes[draft.name]
        start = 0
        for index, fragment in enumerate(draft.fragments):
            match fragment:
                case Branch():
                    if not fragment.is_near and not self._reaches(draft, index, fragment):
                        fragment.is_near = True
                    sizes[index] = fragment.size
                case Align():
                    padding = -start % fragment.boundary
                    sizes[index] = padding if padding <= fragment.limit else 0
                case Org() | Space():
                    sizes[index] = self._filling(draft, start, fragment)
                case Bytes():
                    pass
            start += sizes[index]
        return self._accumulate(draft)

    def _filling(self, draft: SectionDraft, start: int, fragment: Org | Space) -> int:
        """The bytes that an `.org` or a `.space` at `start` takes now; may be negative."""
        if isinstance(fragment, Org):
            target = self.value(fragment.target, fragment.origin)
            if target.terms not in ((), ((("section", draft.name), 1),)):
                raise AssemblyError(fragment.origin, ".org to another section")
            size = target.constant - start
        else:
            count = self.value(fragment.count, fragment.origin)
            if count.terms:
                raise AssemblyError(fragment.origin, "the count is not a plain number")
            size = count.constant * len(fragment.unit)
        if size > _MAX_SECTION:
            raise AssemblyError(fragment.origin, f"{size} bytes of filling: over {_MAX_SECTION}")
        return size

    def _reaches(self, draft: SectionDraft, index: int, branch: Branch) -> bool:
        """Can the short form reach? A branch without a near form is judged at the end."""
        if not branch.near:
            return True
        target = self.value(branch.target, branch.origin)
        if target.terms != ((("section", draft.name), 1),):
            return False
        end = self.starts[draft.name][index] + len(branch.short) + 1
        return -128 <= target.constant - end <= 127


def _initial_size(fragment: Fragment) -> int:
    match fragment:
        case Bytes():
            return len(fragment.data)
        case Branch():
            return fragment.size
    return 0


@dataclass(slots=True)
class _Writer:
    """Turns a settled layout into sections, symbols and relocations."""

    unit: Unit
    layout: _Layout
    sections: dict[str, Section] = field(default_factory=dict)
    section_symbols: dict[str, Symbol] = field(default_factory=dict)
    externals: dict[str, Symbol] = field(default_factory=dict)

    def object(self, name: str) -> ObjectFile:
        for draft in self.unit.sections.values():
            size = self.layout.starts[draft.name][-1]
            if size or draft.name == ".text":
                section = Section(draft.name, draft.flags, b"", size, draft.alignment, draft.nobits)
                self.sections[draft.name] = section
                self.section_symbols[draft.name] = Symbol(
                    draft.name, section, kind=SymbolKind.SECTION
                )
        symbols = [*self.section_symbols.values(), *self._defined()]
        for draft in self.unit.sections.values():
            if draft.name in self.sections:
                self._contents(draft, self.sections[draft.name])
        return ObjectFile(name, list(self.sections.values()), [*symbols, *self.externals.values()])

    def _defined(self) -> list[Symbol]:
        symbols = []
        for name, label in self.unit.labels.items():
            if "@" in name or name.startswith(".L"):
                continue
            section = self._section(label.section)
            offset = self.layout.starts[label.section][label.fragment] + label.offset
            symbols.append(self._symbol(name, section, offset))
        for name, expression in self.unit.assigned.items():
            if name not in self.unit.bindings:
                continue
            origin = self.unit.assigned_at[name]
            value = self.layout.value(expression, origin)
            match value.terms:
                case ():
                    symbols.append(self._symbol(name, None, value.constant))
                case ((("section", section_name), 1),):
                    section = self._section(section_name)
                    symbols.append(self._symbol(name, section, value.constant))
                case _:
                    raise AssemblyError(origin, f"{name} is no address of this file")
        return symbols

    def _section(self, name: str) -> Section:
        """The section, made on demand: a label may stand in one without bytes."""
        if name not in self.sections:
            draft = self.unit.sections[name]
            section = Section(name, draft.flags, b"", 0, draft.alignment, draft.nobits)
            self.sections[name] = section
            self.section_symbols[name] = Symbol(name, section, kind=SymbolKind.SECTION)
        return self.sections[name]

    def _symbol(self, name: str, section: Section | None, value: int) -> Symbol:
        size = 0
        if name in self.unit.sizes:
            expression, origin = self.unit.sizes[name]
            size = self.layout.value(expression, origin).constant
        return Symbol(
            name,
            section,
            value,
            self.unit.bindings.get(name, Binding.LOCAL),
            self.unit.kinds.get(name, SymbolKind.NOTYPE),
            size,
            absolute=section is None,
        )

    def _contents(self, draft: SectionDraft, section: Section) -> None:
        data = bytearray()
        sizes = self.layout.sizes[draft.name]
        code = SectionFlag.EXEC in draft.flags
        for fragment, size in zip(draft.fragments, sizes, strict=True):
            match fragment:
                case Bytes():
                    start = len(data)
                    data += fragment.data
                    for fixup in fragment.fixups:
                        self._field(draft, section, data, start + fixup.offset, fixup)
                case Branch():
                    self._branch(draft, section, data, fragment)
                case Align():
                    if fragment.fill is None and code:
                        data += _nops(size, fragment.mode)
                    else:
                        data += bytes([(fragment.fill or 0) & 0xFF]) * size
                case Org():
                    data += bytes([fragment.fill & 0xFF]) * size
                case Space():
                    data += fragment.unit * (size // len(fragment.unit))
        section.data = b"" if draft.nobits else bytes(data)

    def _field(
        self, draft: SectionDraft, section: Section, data: bytearray, offset: int, fixup: Fixup
    ) -> None:
        value = self.layout.value(fixup.expression, fixup.origin)
        here = (("section", draft.name), -1)
        if not value.terms:
            data[offset : offset + fixup.width] = check_range(
                value.constant, fixup.width, fixup.origin
            )
            return
        if fixup.width not in _ABSOLUTE:
            raise AssemblyError(fixup.origin, f"an address in a field of {fixup.width} bytes")
        kinds, addend = _ABSOLUTE, value.constant
        terms = list(value.terms)
        if here in terms:
            # sym - label + n is relative to this field when n also says how far the
            # field is from the label.
            terms.remove(here)
            kinds, addend = _RELATIVE, value.constant + offset
        if len(terms) != 1 or terms[0][1] != 1:
            raise AssemblyError(
                fixup.origin,
                "a field may hold one address, or its distance from a label of section "
                f"{draft.name}; found {_spell(value)}",
            )
        section.relocations.append(
            Relocation(offset, kinds[fixup.width], self._target(terms[0][0]), addend)
        )

    def _branch(
        self, draft: SectionDraft, section: Section, data: bytearray, branch: Branch
    ) -> None:
        value = self.layout.value(branch.target, branch.origin)
        code, width = (branch.near, branch.width) if branch.is_near else (branch.short, 1)
        data += code
        offset = len(data)
        data += bytes(width)
        if value.terms == ((("section", draft.name), 1),):
            distance = value.constant - (offset + width)
            if width == 1 and not -128 <= distance <= 127:
                raise AssemblyError(
                    branch.origin, f"target is {distance} bytes away, 127 at most: {branch.text}"
                )
            bits = 8 * width
            data[offset:] = (distance & ((1 << bits) - 1)).to_bytes(width, "little")
            return
        if not value.terms:
            raise AssemblyError(
                branch.origin, f"relative branch to the number {value.constant:#x}: {branch.text}"
            )
        if len(value.terms) != 1 or value.terms[0][1] != 1:
            raise AssemblyError(branch.origin, f"target is no address: {_spell(value)}")
        section.relocations.append(
            Relocation(
                offset, _RELATIVE[width], self._target(value.terms[0][0]), value.constant - width
            )
        )

    def _target(self, term: tuple[str, str]) -> Symbol:
        kind, name = term
        if kind == "section":
            self._section(name)
            return self.section_symbols[name]
        if name not in self.externals:
            binding = self.unit.bindings.get(name, Binding.GLOBAL)
            self.externals[name] = Symbol(name, binding=binding)
        return self.externals[name]


def _spell(value: Value) -> str:
    parts = [f"{'-' if count < 0 else '+'} {name}" for (_, name), count in value.terms]
    return " ".join([*parts, f"+ {value.constant:#x}"]).removeprefix("+ ")


def finish(unit: Unit, name: str) -> ObjectFile:
    """Lay the unit out and make the object called `name`; raises `AssemblyError`."""
    layout = _Layout(unit)
    layout.settle()
    return _Writer(unit, layout).object(name)
