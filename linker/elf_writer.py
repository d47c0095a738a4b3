"""Objects as ELF32 files for i386, so that other tools can be given what our linker gets.

Relocations are REL, as on i386: the addend lies in the relocated field.
"""

import struct

from linker.elf_file import (
    ABSOLUTE,
    COMMON,
    SYMBOL,
    ElfFile,
    ElfType,
    SectionType,
    Strings,
    symbol_entry,
)
from linker.objects import Binding, ObjectFile, Section, Symbol, SymbolKind

__all__ = ["write_elf"]

_RELOCATION = struct.Struct("<II")
_SHF_INFO_LINK = 0x40


def _with_addends(section: Section) -> bytes:
    data = bytearray(section.data)
    for relocation in section.relocations:
        width = relocation.kind.width
        value = relocation.addend & ((1 << 8 * width) - 1)
        data[relocation.offset : relocation.offset + width] = value.to_bytes(width, "little")
    return bytes(data)


def write_elf(obj: ObjectFile) -> bytes:
    """The object as a relocatable ELF32 file for i386."""
    file = ElfFile()
    indices: dict[Section, int] = {}
    for section in obj.sections:
        indices[section] = file.add(
            section.name,
            SectionType.NOBITS if section.nobits else SectionType.PROGBITS,
            _with_addends(section),
            flags=int(section.flags),
            size=section.size,
            alignment=section.alignment,
        )
    symbols = sorted(obj.symbols, key=lambda symbol: symbol.binding != Binding.LOCAL)
    numbers = {symbol: number for number, symbol in enumerate(symbols, 1)}
    strings = Strings()
    table = bytearray(SYMBOL.size)
    for symbol in symbols:
        table += _symbol(symbol, strings, indices)
    first_global = 1 + sum(symbol.binding == Binding.LOCAL for symbol in symbols)
    relocated = [section for section in obj.sections if section.relocations]
    symtab = file.sections + len(relocated)
    for section in relocated:
        file.add(
            f".rel{section.name}",
            SectionType.REL,
            b"".join(
                _RELOCATION.pack(
                    relocation.offset, numbers[relocation.symbol] << 8 | relocation.kind.number
                )
                for relocation in section.relocations
            ),
            flags=_SHF_INFO_LINK,
            link=symtab,
            info=indices[section],
            alignment=4,
            entry=_RELOCATION.size,
        )
    file.add_symbols(bytes(table), strings, first_global)
    # A linker takes a missing note for a wish to have an executable stack.
    file.add(".note.GNU-stack", SectionType.PROGBITS, b"")
    return file.finish(ElfType.RELOCATABLE)


def _symbol(symbol: Symbol, strings: Strings, indices: dict[Section, int]) -> bytes:
    index = ABSOLUTE if symbol.absolute else COMMON if symbol.common else 0
    if symbol.section is not None:
        index = indices[symbol.section]
    # A section's symbol has no name of its own.
    name = "" if symbol.kind == SymbolKind.SECTION else symbol.name
    return symbol_entry(
        strings, name, symbol.value, symbol.size, symbol.binding, symbol.kind, index
    )
