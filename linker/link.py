"""Linking: objects and a script into an image."""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase
from itertools import pairwise

from linker.errors import (
    AbsoluteRelocationError,
    DuplicateSymbolError,
    ImageSizeError,
    ObjectError,
    OverlapError,
    RelocationOverflowError,
    UndefinedSymbolError,
)
from linker.got import GOT_SYMBOL, relax, table_object
from linker.image import Image, ImageSection, ImageSymbol, Piece
from linker.layout import Layout, Output, Placed
from linker.merge import common_objects, duplicate_sections
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
from linker.script import Script

__all__ = ["link"]


def link(
    objects: Sequence[ObjectFile],
    script: Script,
    *,
    position_independent: Collection[str] = (),
    size_limit: int | None = None,
) -> Image:
    """Link objects, in the order given, as the script says.

    Output sections whose name matches a pattern in `position_independent` may hold
    no absolute 32-bit address. `size_limit` is in bytes. Raises a `LinkError`.
    """
    objects = _completed(objects)
    duplicates = duplicate_sections(objects)
    definitions = _definitions(objects, duplicates)
    layout = Layout(script, objects, definitions, duplicates)
    layout.run()
    present = [output for output in layout.outputs if output.size]
    _check_overlap(present)
    symbols = _Symbols(layout, definitions)
    contents = {
        id(output): _contents(output, symbols, position_independent)
        for output in present
        if not output.nobits
    }
    loaded = [output for output in present if not output.nobits]
    base = min((output.address for output in loaded), default=0)
    end = max((output.address + output.size for output in loaded), default=0)
    if size_limit is not None and end - base > size_limit:
        raise ImageSizeError(end - base, size_limit)
    data = bytearray(end - base)
    for output in loaded:
        start = output.address - base
        data[start : start + output.size] = contents[id(output)]
    entry = None
    if layout.entry is not None:
        place = f"{script.name}:{layout.entry.line}"
        entry = symbols.named(layout.entry.symbol, place)
    return Image(
        bytes(data),
        base,
        entry,
        symbols.globals(),
        symbols.labels(),
        tuple(_image_section(output) for output in present),
        tuple(
            Piece(placed.object.name, placed.section.name, 0, placed.section.size)
            for placed in layout.discarded
        ),
    )


def _completed(objects: Sequence[ObjectFile]) -> list[ObjectFile]:
    """The objects, and what they leave to the linker to make."""
    made = common_objects(objects)
    table = table_object(objects)
    if table is not None:
        made.append(table)
    whole = list(objects)
    for number, obj in sorted(made, key=lambda entry: -entry[0]):
        whole.insert(number, obj)
    return whole


def _definitions(
    objects: Sequence[ObjectFile], duplicates: AbstractSet[Section]
) -> dict[str, tuple[ObjectFile, Symbol]]:
    found: dict[str, tuple[ObjectFile, Symbol]] = {}
    for obj in objects:
        for symbol in obj.symbols:
            if symbol.binding == Binding.LOCAL or not symbol.defined:
                continue
            if symbol.section in duplicates:
                continue
            before = found.get(symbol.name)
            if before is None or before[1].binding == Binding.WEAK != symbol.binding:
                found[symbol.name] = (obj, symbol)
            elif symbol.binding == Binding.GLOBAL:
                raise DuplicateSymbolError(
                    symbol.name, before[0].locate(before[1]), obj.locate(symbol)
                )
    return found


def _check_overlap(outputs: list[Output]) -> None:
    ordered = sorted(outputs, key=lambda output: (output.address, output.size))
    for first, second in pairwise(ordered):
        if first.address + first.size > second.address:
            raise OverlapError(
                first.name,
                (first.address, first.address + first.size),
                second.name,
                (second.address, second.address + second.size),
            )


class _Symbols:
    """Addresses of symbols once the layout stands."""

    def __init__(self, layout: Layout, definitions: dict[str, tuple[ObjectFile, Symbol]]) -> None:
        self._layout = layout
        self._definitions = definitions

    def named(self, name: str, place: str) -> int:
        """The address of a global or script symbol; `place` is who asks."""
        if name in self._layout.assigned:
            return self._layout.assigned[name].address
        if name in self._definitions:
            obj, symbol = self._definitions[name]
            return self._defined(obj, symbol)
        raise UndefinedSymbolError(name, place)

    def of(self, symbol: Symbol, obj: ObjectFile, place: str) -> tuple[int, bool]:
        """The address of what an object refers to, and whether it is a plain number."""
        if symbol.defined and symbol.binding == Binding.LOCAL:
            return self._defined(obj, symbol), symbol.absolute
        name = symbol.name
        if name in self._layout.assigned:
            amount = self._layout.assigned[name]
            return amount.address, amount.is_number
        if name in self._definitions:
            return self.named(name, place), self._definitions[name][1].absolute
        if symbol.binding == Binding.WEAK:
            return 0, True
        raise UndefinedSymbolError(name, place)

    def _defined(self, obj: ObjectFile, symbol: Symbol) -> int:
        if symbol.section is None:
            return symbol.value
        address = self._layout.address(symbol.section)
        if address is None:
            raise ObjectError(
                obj.name,
                f"{symbol.name} is used, but its section {symbol.section.name} is discarded",
            )
        return address + symbol.value

    def globals(self) -> dict[str, int]:
        """Every global and script symbol that has an address."""
        found = {
            name: self._defined(obj, symbol)
            for name, (obj, symbol) in self._definitions.items()
            if symbol.section is None or self._layout.address(symbol.section) is not None
        }
        found |= {name: amount.address for name, amount in self._layout.assigned.items()}
        return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))

    def labels(self) -> tuple[ImageSymbol, ...]:
        """Every named place of the objects and the script, by address."""
        found = [
            ImageSymbol(
                name,
                amount.address,
                "",
                self._layout.script.name,
                is_global=True,
                is_number=amount.is_number,
            )
            for name, amount in self._layout.assigned.items()
        ]
        for obj in self._layout.objects:
            for symbol in obj.symbols:
                if not symbol.defined or symbol.kind == SymbolKind.SECTION or not symbol.name:
                    continue
                output = self._layout.output_of(symbol.section) if symbol.section else None
                if symbol.section is not None and output is None:
                    continue
                found.append(
                    ImageSymbol(
                        symbol.name,
                        self._defined(obj, symbol),
                        output.name if output else "",
                        obj.name,
                        is_global=symbol.binding != Binding.LOCAL,
                        kind=symbol.kind,
                        size=symbol.size,
                        is_number=symbol.absolute,
                    )
                )
        return tuple(sorted(found, key=lambda label: (label.address, label.name)))


def _contents(output: Output, symbols: _Symbols, independent: Collection[str]) -> bytes:
    data = bytearray(output.size)
    code = SectionFlag.EXEC in output.flags
    for offset, length, pattern in output.gaps:
        data[offset : offset + length] = _filling(length, pattern, code=code)
    for offset, value in output.data:
        data[offset : offset + len(value)] = value
    strict = any(fnmatchcase(output.name, pattern) for pattern in independent)
    for placed in output.placed:
        section = placed.section
        if not section.nobits:
            data[placed.offset : placed.offset + section.size] = section.data
        for relocation in section.relocations:
            _relocate(data, output, placed, relocation, symbols, strict=strict)
    return bytes(data)


def _filling(length: int, pattern: bytes | None, *, code: bool) -> bytes:
    if pattern is None:
        # GNU ld pads i386 code with two-byte no-operations (xchg %ax,%ax).
        pattern = b"\x66\x90" if code else b"\0"
        if code and length % 2:
            return pattern * (length // 2) + b"\x90"
    return (pattern * (length // len(pattern) + 1))[:length]


def _relocate(
    data: bytearray,
    output: Output,
    placed: Placed,
    relocation: Relocation,
    symbols: _Symbols,
    *,
    strict: bool,
) -> None:
    obj, section, kind = placed.object, placed.section, relocation.kind
    at = obj.describe(section, relocation.offset)
    place = f"{obj.name}({section.name}) at {at}"
    address, is_number = symbols.of(relocation.symbol, obj, place)
    spelling = _spell(obj, relocation)
    if strict and kind is RelocationKind.R_386_32 and not is_number:
        raise AbsoluteRelocationError(place, output.name, spelling)
    offset = placed.offset + relocation.offset
    addend = relocation.addend
    if kind in (RelocationKind.R_386_GOT32, RelocationKind.R_386_GOT32X):
        relaxed = None
        if not addend and relocation.offset >= 2:
            relaxed = relax(data, offset, kind, absolute=is_number or not strict)
        if relaxed is None:
            raise ObjectError(
                obj.name,
                f"{at}: {kind.name} against {spelling} needs an entry of a global offset table, "
                f"which an image has not; compile {spelling} and its users with "
                f"-fvisibility=hidden, or declare it with that visibility",
            )
        kind, addend, offset = relaxed.kind, relaxed.addend, offset + relaxed.shift
    value = address + addend
    if kind is RelocationKind.R_386_GOTOFF:
        value -= symbols.named(GOT_SYMBOL, place)
    if kind.relative:
        value -= output.address + offset
    # Addresses wrap at 4 GiB; what is then the smaller distance is what was meant.
    value = (value + (1 << 31)) % (1 << 32) - (1 << 31)
    least, most = kind.limits
    if kind.width < 4 and not least <= value <= most:
        raise RelocationOverflowError(place, kind.name, spelling, value, (least, most))
    data[offset : offset + kind.width] = (value & ((1 << 8 * kind.width) - 1)).to_bytes(
        kind.width, "little"
    )


def _spell(obj: ObjectFile, relocation: Relocation) -> str:
    """The target in the source's words, as far as they can be found again."""
    symbol = relocation.symbol
    if symbol.kind == SymbolKind.SECTION and symbol.section is not None:
        return obj.describe(symbol.section, max(symbol.value + relocation.addend, 0))
    return symbol.name


def _image_section(output: Output) -> ImageSection:
    return ImageSection(
        output.name,
        output.address,
        output.size,
        output.alignment,
        output.flags,
        output.nobits,
        tuple(
            Piece(
                placed.object.name,
                placed.section.name,
                output.address + placed.offset,
                placed.section.size,
            )
            for placed in output.placed
            if placed.section.size
        ),
    )
