"""The frame of an ELF32 file for i386: headers, section contents, string tables.

Layout: System V ABI, chapters 4 and 5, and its Intel386 supplement.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

__all__ = [
    "ABSOLUTE",
    "COMMON",
    "SYMBOL",
    "ElfFile",
    "ElfType",
    "ProgramSegment",
    "SectionType",
    "Strings",
    "symbol_entry",
]

_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<8I")
_SECTION_HEADER = struct.Struct("<10I")
SYMBOL = struct.Struct("<IIIBBH")

_IDENT = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
_EM_386 = 3
_PT_LOAD = 1
ABSOLUTE = 0xFFF1
"""The section index of a symbol that is a plain number (SHN_ABS)."""

COMMON = 0xFFF2
"""The section index of a symbol that any object may give room to (SHN_COMMON)."""


class ElfType(IntEnum):
    """What the file is for."""

    RELOCATABLE = 1
    EXECUTABLE = 2


class SectionType(IntEnum):
    """What a section holds."""

    PROGBITS = 1
    SYMTAB = 2
    STRTAB = 3
    NOBITS = 8
    REL = 9


@dataclass(slots=True)
class Strings:
    """A string table."""

    data: bytearray = field(default_factory=lambda: bytearray(1))
    _known: dict[str, int] = field(default_factory=dict)

    def add(self, text: str) -> int:
        """The offset of a text, which is added when it is new."""
        if not text:
            return 0
        if text not in self._known:
            self._known[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self._known[text]


@dataclass(frozen=True, slots=True)
class ProgramSegment:
    """What a loader puts into memory: `file_size` bytes of the file, zeros up to `size`."""

    offset: int
    address: int
    file_size: int
    size: int
    flags: int
    alignment: int


@dataclass(slots=True)
class ElfFile:
    """The file as it grows: headers, contents, the section header table last.

    `segments` says how many program headers to leave room for.
    """

    segments: int = 0
    data: bytearray = field(init=False)
    _headers: list[tuple[int, ...]] = field(default_factory=lambda: [(0,) * 10])
    _names: Strings = field(default_factory=Strings)

    def __post_init__(self) -> None:
        self.data = bytearray(_HEADER.size + self.segments * _PROGRAM_HEADER.size)

    @property
    def sections(self) -> int:
        """How many sections there are, the null section included."""
        return len(self._headers)

    def add(
        self,
        name: str,
        kind: SectionType,
        contents: bytes,
        *,
        flags: int = 0,
        size: int | None = None,
        link: int = 0,
        info: int = 0,
        alignment: int = 1,
        entry: int = 0,
    ) -> int:
        """Append a section with its contents; answers its index. Sizes in bytes."""
        self.data += bytes(-len(self.data) % max(alignment, 4))
        length = len(contents) if size is None else size
        offset = len(self.data)
        self.data += contents
        return self.describe(
            name, kind, offset, length,
            flags=flags, link=link, info=info, alignment=alignment, entry=entry,
        )  # fmt: skip

    def describe(
        self,
        name: str,
        kind: SectionType,
        offset: int,
        size: int,
        *,
        address: int = 0,
        flags: int = 0,
        link: int = 0,
        info: int = 0,
        alignment: int = 1,
        entry: int = 0,
    ) -> int:
        """A section whose contents are in the file already; answers its index."""
        self._headers.append(
            (
                self._names.add(name), kind, flags, address, offset, size,
                link, info, alignment, entry,
            )
        )  # fmt: skip
        return len(self._headers) - 1

    def add_symbols(self, table: bytes, strings: Strings, first_global: int) -> None:
        """Append .symtab and .strtab; `table` has the null symbol first."""
        self.add(
            ".symtab", SectionType.SYMTAB, table,
            link=self.sections + 1, info=first_global, alignment=4, entry=SYMBOL.size,
        )  # fmt: skip
        self.add(".strtab", SectionType.STRTAB, bytes(strings.data))

    def finish(
        self, kind: ElfType, *, entry: int = 0, segments: Sequence[ProgramSegment] = ()
    ) -> bytes:
        """The whole file."""
        self._names.add(".shstrtab")
        names = self.add(".shstrtab", SectionType.STRTAB, bytes(self._names.data))
        self.data += bytes(-len(self.data) % 4)
        table = len(self.data)
        for header in self._headers:
            self.data += _SECTION_HEADER.pack(*header)
        for number, segment in enumerate(segments):
            _PROGRAM_HEADER.pack_into(
                self.data, _HEADER.size + number * _PROGRAM_HEADER.size,
                _PT_LOAD, segment.offset, segment.address, segment.address,
                segment.file_size, segment.size, segment.flags, segment.alignment,
            )  # fmt: skip
        _HEADER.pack_into(
            self.data, 0,
            _IDENT, kind, _EM_386, 1, entry, _HEADER.size if segments else 0, table, 0,
            _HEADER.size, _PROGRAM_HEADER.size if segments else 0, len(segments),
            _SECTION_HEADER.size, len(self._headers), names,
        )  # fmt: skip
        return bytes(self.data)


def symbol_entry(
    strings: Strings, name: str, value: int, size: int, binding: int, kind: int, section: int
) -> bytes:
    """One entry of a symbol table; `section` is an index."""
    return SYMBOL.pack(strings.add(name), value & 0xFFFFFFFF, size, binding << 4 | kind, 0, section)
