"""What several objects define together: COMDAT groups and common symbols.

A COMDAT group (System V ABI, "Section Groups") is kept from the first object that has one
of its name. A common symbol (C's `int x;` under -fcommon) is given room in the object
where it is largest, unless one defines it outright.
"""

from collections.abc import Sequence

from linker.objects import Binding, ObjectFile, Section, SectionFlag, Symbol, SymbolKind

__all__ = ["common_objects", "duplicate_sections"]

_COMMON = "COMMON"


def duplicate_sections(objects: Sequence[ObjectFile]) -> frozenset[Section]:
    """The sections of groups that an earlier object has brought along."""
    known: set[str] = set()
    found: set[Section] = set()
    for obj in objects:
        for group in obj.groups:
            if group.signature in known:
                found.update(group.sections)
            known.add(group.signature)
    return frozenset(found)


def common_objects(objects: Sequence[ObjectFile]) -> list[tuple[int, ObjectFile]]:
    """The room for common symbols, as objects to put at an index of the list.

    Room for one object's symbols follows that object, in a section COMMON. (GNU ld
    leaves the order of several in one object to chance.)
    """
    defined = {
        symbol.name
        for obj in objects
        for symbol in obj.symbols
        if symbol.binding == Binding.GLOBAL and symbol.defined
    }
    largest: dict[str, tuple[int, Symbol]] = {}
    alignments: dict[str, int] = {}
    for number, obj in enumerate(objects, 1):
        for symbol in obj.symbols:
            if not symbol.common or symbol.name in defined:
                continue
            name = symbol.name
            alignments[name] = max(symbol.value, alignments.get(name, 1))
            if name not in largest or symbol.size > largest[name][1].size:
                largest[name] = (number, symbol)
    return [
        (number, _room(obj.name, [s for n, s in largest.values() if n == number], alignments))
        for number, obj in enumerate(objects, 1)
        if any(n == number for n, _ in largest.values())
    ]


def _room(name: str, symbols: list[Symbol], alignments: dict[str, int]) -> ObjectFile:
    flags = SectionFlag.ALLOC | SectionFlag.WRITE
    section = Section(_COMMON, flags, nobits=True)
    placed = []
    for symbol in symbols:
        alignment = alignments[symbol.name]
        offset = -(-section.size // alignment) * alignment
        section.size = offset + symbol.size
        section.alignment = max(section.alignment, alignment)
        placed.append(
            Symbol(symbol.name, section, offset, Binding.GLOBAL, SymbolKind.OBJECT, symbol.size)
        )
    return ObjectFile(name, [section], placed)
