"""Objects as ELF32 files for i386, so that other tools can be given what our linker gets.

Layout: System V ABI, chapter 4, and its Intel386 supplement (relocations are REL:
the addend lies in the relocated field).
"""

import struct
from dataclasses import dataclass, field

from linker.objects import Binding, ObjectFile, Section, Symbol, SymbolKind

__all__ = ["write_elf"]

_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
_SECTION_HEADER = struct.Struct("<10I")
_SYMBOL = struct.Struct("<IIIBBH")
_RELOCATION = struct.Struct("<II")

_IDENT = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
_ET_REL, _EM_386 = 1, 3
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB, _SHT_NOBITS, _SHT_REL = 1, 2, 3, 8, 9
_SHF_INFO_LINK = 0x40
_SHN_ABS = 0xFFF1


@dataclass(slots=True)
class _Strings:
    """A string table."""

    data: bytearray = field(default_factory=lambda: bytearray(1))
    _known: dict[str, int] = field(default_factory=dict)

    def add(self, text: str) -> int:
        if not text:
            return 0
        if text not in self._known:
            self._known[text] = len(self.data)
            self.data += text.encode("ascii") + b"\0"
        return self._known[text]


@dataclass(slots=True)
class _File:
    """The file as it grows: contents first, the section header table last."""

    data: bytearray = field(default_factory=lambda: bytearray(_HEADER.size))
    headers: list[tuple[int, ...]] = field(default_factory=lambda: [(0,) * 10])
    names: _Strings = field(default_factory=_Strings)

    def add(
        self,
        name: str,
        kind: int,
        contents: bytes,
        *,
        flags: int = 0,
        size: int | None = None,
        link: int = 0,
        info: int = 0,
        alignment: int = 1,
        entry: int = 0,
    ) -> int:
        """Append a section, the index of which is returned; sizes in bytes."""
        self.data += bytes(-len(self.data) % max(alignment, 4))
        length = len(contents) if size is None else size
        self.headers.append(
            (
                self.names.add(name), kind, flags, 0, len(self.data), length,
                link, info, alignment, entry,
            )
        )  # fmt: skip
        self.data += contents
        return len(self.headers) - 1


def _with_addends(section: Section) -> bytes:
    data = bytearray(section.data)
    for relocation in section.relocations:
        width = relocation.kind.width
        value = relocation.addend & ((1 << 8 * width) - 1)
        data[relocation.offset : relocation.offset + width] = value.to_bytes(width, "little")
    return bytes(data)


def write_elf(obj: ObjectFile) -> bytes:
    """The object as a relocatable ELF32 file for i386."""
    file = _File()
    indices: dict[Section, int] = {}
    for section in obj.sections:
        indices[section] = file.add(
            section.name,
            _SHT_NOBITS if section.nobits else _SHT_PROGBITS,
            _with_addends(section),
            flags=int(section.flags),
            size=section.size,
            alignment=section.alignment,
        )
    symbols = sorted(obj.symbols, key=lambda symbol: symbol.binding != Binding.LOCAL)
    numbers = {symbol: number for number, symbol in enumerate(symbols, 1)}
    strings = _Strings()
    table = bytearray(_SYMBOL.size)
    for symbol in symbols:
        table += _symbol(symbol, strings, indices)
    first_global = 1 + sum(symbol.binding == Binding.LOCAL for symbol in symbols)
    relocated = [section for section in obj.sections if section.relocations]
    symtab = len(file.headers) + len(relocated)
    for section in relocated:
        file.add(
            f".rel{section.name}",
            _SHT_REL,
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
    file.add(
        ".symtab", _SHT_SYMTAB, bytes(table),
        link=symtab + 1, info=first_global, alignment=4, entry=_SYMBOL.size,
    )  # fmt: skip
    file.add(".strtab", _SHT_STRTAB, bytes(strings.data))
    # A linker takes a missing note for a wish to have an executable stack.
    file.add(".note.GNU-stack", _SHT_PROGBITS, b"")
    file.names.add(".shstrtab")
    names = file.add(".shstrtab", _SHT_STRTAB, bytes(file.names.data))
    file.data += bytes(-len(file.data) % 4)
    table_offset = len(file.data)
    for header in file.headers:
        file.data += _SECTION_HEADER.pack(*header)
    file.data[: _HEADER.size] = _HEADER.pack(
        _IDENT, _ET_REL, _EM_386, 1, 0, 0, table_offset, 0,
        _HEADER.size, 0, 0, _SECTION_HEADER.size, len(file.headers), names,
    )  # fmt: skip
    return bytes(file.data)


def _symbol(symbol: Symbol, strings: _Strings, indices: dict[Section, int]) -> bytes:
    index = _SHN_ABS if symbol.absolute else 0
    if symbol.section is not None:
        index = indices[symbol.section]
    # A section's symbol has no name of its own.
    name = "" if symbol.kind == SymbolKind.SECTION else symbol.name
    return _SYMBOL.pack(
        strings.add(name),
        symbol.value & 0xFFFFFFFF,
        symbol.size,
        symbol.binding << 4 | symbol.kind,
        0,
        index,
    )
