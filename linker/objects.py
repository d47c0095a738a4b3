"""What is linked: sections of bytes, symbols, and relocations between them.

The model is that of ELF for i386 (System V ABI, Intel386 supplement, chapter 4)
with addends kept beside the relocation instead of in the relocated field.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum, IntFlag

__all__ = [
    "Binding",
    "Group",
    "ObjectFile",
    "Relocation",
    "RelocationKind",
    "Section",
    "SectionFlag",
    "Symbol",
    "SymbolKind",
]


class SectionFlag(IntFlag):
    """What the image does with a section; values as in ELF's sh_flags."""

    WRITE = 1
    ALLOC = 2
    EXEC = 4


class Binding(IntEnum):
    """Who sees a symbol; values as in ELF."""

    LOCAL = 0
    GLOBAL = 1
    WEAK = 2


class SymbolKind(IntEnum):
    """What a symbol names; values as in ELF."""

    NOTYPE = 0
    OBJECT = 1
    FUNCTION = 2
    SECTION = 3


class RelocationKind(Enum):
    """How a field is computed: ELF number, width in bytes, relative to its own address?

    GOTOFF is relative to the global offset table, GOTPC the table's own address, and
    the two GOT32 kinds name an entry in it (see `linker.got`).
    """

    R_386_32 = (1, 4, False)
    R_386_PC32 = (2, 4, True)
    R_386_GOT32 = (3, 4, False)
    R_386_GOTOFF = (9, 4, False)
    R_386_GOTPC = (10, 4, True)
    R_386_16 = (20, 2, False)
    R_386_PC16 = (21, 2, True)
    R_386_8 = (22, 1, False)
    R_386_PC8 = (23, 1, True)
    R_386_GOT32X = (43, 4, False)

    def __init__(self, number: int, width: int, relative: bool) -> None:  # noqa: FBT001
        self.number = number
        self.width = width
        self.relative = relative

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the greatest value the field takes without loss.

        A 32-bit field wraps around, so that code may address the upper half of the
        address space; in narrower ones a carry out is an error, as it is for GNU ld.
        """
        bits = 8 * self.width
        signed = self.width == 1 and self.relative
        return -(1 << (bits - 1)), (1 << (bits - 1 if signed else bits)) - 1


@dataclass(eq=False, slots=True)
class Section:
    """One input section.

    `size` in bytes; a `nobits` section has a size and no data. Fields that a
    relocation will fill hold zero.
    """

    name: str
    flags: SectionFlag
    data: bytes = b""
    size: int = 0
    alignment: int = 1
    nobits: bool = False
    relocations: list["Relocation"] = field(default_factory=list)


@dataclass(frozen=True, eq=False, slots=True)
class Symbol:
    """A name for a place or a number.

    `value` is an offset into `section`, or a plain number when `absolute`. With
    neither, the symbol is wanted from elsewhere; a `common` one is content with
    `size` bytes of zeros aligned to `value`.
    """

    name: str
    section: Section | None = None
    value: int = 0
    binding: Binding = Binding.LOCAL
    kind: SymbolKind = SymbolKind.NOTYPE
    size: int = 0
    absolute: bool = False
    common: bool = False

    @property
    def defined(self) -> bool:
        """Does this object say where the symbol is?"""
        return self.section is not None or self.absolute


@dataclass(frozen=True, slots=True)
class Relocation:
    """The field at `offset` becomes symbol + addend, less its own address if relative."""

    offset: int
    kind: RelocationKind
    symbol: Symbol
    addend: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Group:
    """Sections that are linked once, however many objects bring a group of this name."""

    signature: str
    sections: tuple[Section, ...]


@dataclass(eq=False, slots=True)
class ObjectFile:
    """One relocatable object; sections and symbols in file order."""

    name: str
    sections: list[Section] = field(default_factory=list)
    symbols: list[Symbol] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    def section(self, name: str) -> Section:
        """The first section of this name; raises `KeyError`."""
        for section in self.sections:
            if section.name == name:
                return section
        raise KeyError(name)

    def symbol(self, name: str) -> Symbol:
        """The first symbol of this name; raises `KeyError`."""
        for symbol in self.symbols:
            if symbol.name == name:
                return symbol
        raise KeyError(name)

    def locate(self, symbol: Symbol) -> str:
        """Where the object defines a symbol, for messages."""
        return f"{self.name}({symbol.section.name if symbol.section else '*ABS*'})"

    def describe(self, section: Section, offset: int) -> str:
        """The place as a reader knows it: the nearest label at or below, and the distance."""
        best: Symbol | None = None
        for symbol in self.symbols:
            if (
                symbol.section is section
                and symbol.kind is not SymbolKind.SECTION
                and symbol.value <= offset
                and (best is None or symbol.value > best.value)
            ):
                best = symbol
        if best is None:
            return f"{section.name}+{offset:#x}"
        return best.name if best.value == offset else f"{best.name}+{offset - best.value:#x}"
