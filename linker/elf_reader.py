"""ELF32 objects of any toolchain, read with LIEF."""

import struct
from pathlib import Path

import lief

from linker.elf_file import ABSOLUTE, COMMON
from linker.errors import ObjectError
from linker.objects import (
    Binding,
    Group,
    ObjectFile,
    Relocation,
    RelocationKind,
    Section,
    SectionFlag,
    Symbol,
    SymbolKind,
)

__all__ = ["read_elf"]

_STT_FILE = 4
_BINDINGS = {int(binding): binding for binding in Binding}
_SYMBOL_KINDS = {int(kind): kind for kind in SymbolKind}
_R_386_NONE = 0
_R_386_PLT32 = 4
_SHF_TLS = 0x400
_GRP_COMDAT = 1
_READ = (
    lief.ELF.Section.TYPE.PROGBITS,
    lief.ELF.Section.TYPE.NOBITS,
    lief.ELF.Section.TYPE.NOTE,
)
_CONSTRUCTORS = (".init_array", ".fini_array", ".preinit_array", ".ctors", ".dtors", ".init")

_KINDS = {kind.number: kind for kind in RelocationKind}
# Without a procedure linkage table a call through it is a call.
_KINDS[_R_386_PLT32] = RelocationKind.R_386_PC32
# LIEF numbers a relocation kind with its architecture in the high bits.
_KIND_MASK = (1 << 27) - 1
_NAMES = {
    int(kind) & _KIND_MASK: name.replace("X86_", "R_386_")
    for name, kind in vars(lief.ELF.Relocation.TYPE).items()
    if name.startswith("X86_") and not name.startswith("X86_64")
}
_ENTRY = struct.Struct("<II")


def _whole_entries(content: bytes) -> bytes:
    return content[: len(content) // _ENTRY.size * _ENTRY.size]


def _spell(number: int) -> str:
    """A relocation kind as tools print it, where LIEF knows the name."""
    return _NAMES.get(number, f"kind {number}")


def read_elf(path: Path, name: str | None = None) -> ObjectFile:
    """Read a relocatable object for i386; it is called `name`, or else as the file.

    Sections of strings and constants that GNU ld would merge are taken as they are.
    Raises `ObjectError` for a file that is none, for constructors and thread-local
    data, and for relocations outside the kinds of `RelocationKind` and PLT32.
    """
    name = name or path.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ObjectError(name, error.strerror or str(error)) from error
    if data[:4] != b"\x7fELF":
        raise ObjectError(name, "not an ELF file")
    binary = lief.ELF.parse(list(data))
    if binary is None:
        raise ObjectError(name, "a damaged ELF file")
    if (
        binary.header.file_type != lief.ELF.Header.FILE_TYPE.REL
        or binary.header.machine_type != lief.ELF.ARCH.I386
    ):
        raise ObjectError(
            name,
            f"expected a relocatable object for I386, found {binary.header.file_type.name} "
            f"for {binary.header.machine_type.name}",
        )
    return _Reader(binary, name).read()


class _Reader:
    def __init__(self, binary: lief.ELF.Binary, name: str) -> None:
        self._binary = binary
        self._object = ObjectFile(name)
        self._sections: dict[int, Section] = {}
        self._symbols: dict[int, Symbol] = {}

    def read(self) -> ObjectFile:
        for index, raw in enumerate(self._binary.sections):
            self._refuse(raw)
            if raw.type in _READ:
                self._sections[index] = self._section(raw)
        self._object.sections = list(self._sections.values())
        for index, symbol in enumerate(self._binary.symtab_symbols):
            if index:
                self._symbols[index] = self._symbol(symbol)
        self._object.symbols = list(self._symbols.values())
        self._object.groups = [
            self._group(raw)
            for raw in self._binary.sections
            if raw.type == lief.ELF.Section.TYPE.GROUP
        ]
        for raw in self._binary.sections:
            if raw.type == lief.ELF.Section.TYPE.REL:
                self._relocations(raw)
        for section in self._object.sections:
            section.relocations.sort(key=lambda relocation: relocation.offset)
        return self._object

    def _refuse(self, raw: lief.ELF.Section) -> None:
        """What would be linked without a word and not work."""
        name = str(raw.name)
        if raw.size and name.startswith(_CONSTRUCTORS):
            raise ObjectError(
                self._object.name, f"section {name} holds constructors, which nothing would call"
            )
        if int(raw.flags) & _SHF_TLS:
            raise ObjectError(self._object.name, f"section {name} holds thread-local data")

    def _group(self, raw: lief.ELF.Section) -> Group:
        content = bytes(raw.content)
        words = [int.from_bytes(content[at : at + 4], "little") for at in range(0, len(content), 4)]
        members = tuple(self._sections[n] for n in words[1:] if n in self._sections)
        symbol = self._symbols.get(raw.information)
        if not words or symbol is None:
            raise ObjectError(self._object.name, f"the section group {raw.name!r} is damaged")
        # A group that is not COMDAT is always linked.
        return Group(symbol.name, members if words[0] & _GRP_COMDAT else ())

    def _section(self, raw: lief.ELF.Section) -> Section:
        nobits = raw.type == lief.ELF.Section.TYPE.NOBITS
        flags = SectionFlag(int(raw.flags) & 7)
        return Section(
            str(raw.name),
            flags,
            b"" if nobits else bytes(raw.content),
            raw.size,
            max(raw.alignment, 1),
            nobits,
        )

    def _symbol(self, raw: lief.ELF.Symbol) -> Symbol:
        name = str(raw.name)
        section = self._sections.get(raw.shndx)
        kind = _SYMBOL_KINDS.get(int(raw.type), SymbolKind.NOTYPE)
        if int(raw.type) == _STT_FILE:
            name = ""
        elif kind is SymbolKind.SECTION and section is not None:
            name = section.name
        return Symbol(
            name,
            section,
            raw.value,
            _BINDINGS.get(int(raw.binding), Binding.GLOBAL),
            kind,
            raw.size,
            absolute=raw.shndx == ABSOLUTE,
            common=raw.shndx == COMMON,
        )

    def _relocations(self, raw: lief.ELF.Section) -> None:
        """A section of REL entries; LIEF does not know all of their kinds."""
        target = self._sections.get(raw.information)
        if target is None or not target.flags & SectionFlag.ALLOC:
            return
        for offset, info in _ENTRY.iter_unpack(_whole_entries(bytes(raw.content))):
            self._relocation(target, offset, info & 0xFF, info >> 8)

    def _relocation(self, target: Section, offset: int, number: int, index: int) -> None:
        if number == _R_386_NONE:
            return
        kind = _KINDS.get(number)
        if kind is None:
            raise ObjectError(
                self._object.name,
                f"{target.name}+{offset:#x}: relocation {_spell(number)} is not supported",
            )
        end = offset + kind.width
        if end > len(target.data):
            raise ObjectError(
                self._object.name,
                f"relocation at {target.name}+{offset:#x} lies outside its section",
            )
        symbol = self._symbols.get(index)
        if symbol is None:
            raise ObjectError(
                self._object.name,
                f"relocation at {target.name}+{offset:#x} names the symbol {index}, "
                f"there are {len(self._symbols)}",
            )
        addend = int.from_bytes(target.data[offset:end], "little", signed=True)
        target.data = target.data[:offset] + bytes(kind.width) + target.data[end:]
        target.relocations.append(Relocation(offset, kind, symbol, addend))
