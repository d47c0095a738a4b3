"""ELF32 objects of any toolchain, read with LIEF."""

from pathlib import Path

import lief

from linker.errors import ObjectError
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

__all__ = ["read_elf"]

_SHN_ABS = 0xFFF1
_SHN_COMMON = 0xFFF2
_STT_FILE = 4
_BINDINGS = {int(binding): binding for binding in Binding}
_SYMBOL_KINDS = {int(kind): kind for kind in SymbolKind}
_R_386_NONE = 0
_R_386_PLT32 = 4

_KINDS = {kind.number: kind for kind in RelocationKind}
# Without a procedure linkage table a call through it is a call.
_KINDS[_R_386_PLT32] = RelocationKind.R_386_PC32

# LIEF numbers a relocation type with its architecture in the high bits.
_TYPE_MASK = (1 << 27) - 1


def read_elf(path: Path, name: str | None = None) -> ObjectFile:
    """Read a relocatable object for i386; it is called `name`, or else as the file.

    Raises `ObjectError` for a file that is none, and for common symbols and
    relocations outside the kinds of `RelocationKind` and PLT32.
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
        self._by_place: dict[tuple[str, int], Section] = {}
        self._symbols: dict[int, Symbol] = {}

    def read(self) -> ObjectFile:
        for index, raw in enumerate(self._binary.sections):
            if raw.type in (lief.ELF.Section.TYPE.PROGBITS, lief.ELF.Section.TYPE.NOBITS):
                section = self._sections[index] = self._section(raw)
                self._by_place[str(raw.name), raw.file_offset] = section
        self._object.sections = list(self._sections.values())
        for index, symbol in enumerate(self._binary.symtab_symbols):
            if index:
                self._symbols[index] = self._symbol(symbol)
        self._object.symbols = list(self._symbols.values())
        for relocation in self._binary.relocations:
            self._relocation(relocation)
        for section in self._object.sections:
            section.relocations.sort(key=lambda relocation: relocation.offset)
        return self._object

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
        if raw.shndx == _SHN_COMMON:
            raise ObjectError(
                self._object.name, f"{name} is a common symbol; compile with -fno-common"
            )
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
            absolute=raw.shndx == _SHN_ABS,
        )

    def _relocation(self, raw: lief.ELF.Relocation) -> None:
        number = int(raw.type) & _TYPE_MASK
        target = None
        if raw.section is not None:
            target = self._by_place.get((str(raw.section.name), raw.section.file_offset))
        if number == _R_386_NONE or target is None or not target.flags & SectionFlag.ALLOC:
            return
        kind = _KINDS.get(number)
        offset = raw.address
        if kind is None:
            raise ObjectError(
                self._object.name,
                f"{target.name}+{offset:#x}: relocation {raw.type.name} is not supported",
            )
        end = offset + kind.width
        if end > len(target.data):
            raise ObjectError(
                self._object.name,
                f"relocation at {target.name}+{offset:#x} lies outside its section",
            )
        symbol = self._symbols.get(raw.info)
        if symbol is None:
            raise ObjectError(
                self._object.name,
                f"relocation at {target.name}+{offset:#x} names the symbol {raw.info}, "
                f"there are {len(self._symbols)}",
            )
        addend = int.from_bytes(target.data[offset:end], "little", signed=True)
        target.data = target.data[:offset] + bytes(kind.width) + target.data[end:]
        target.relocations.append(Relocation(offset, kind, symbol, addend))
