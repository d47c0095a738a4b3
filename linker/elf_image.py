"""A linked image as an ELF executable, so that gdb, objdump, nm and profilers name its code.

Nobody runs this file: it says which symbol is where, at the addresses of the link or at
those where a guest maps the image. Assembly seldom types and sizes its symbols, so what
a source leaves open is filled in: a global label in code is a function, one in data an
object, and each reaches to the next or to the end of its input section.
"""

from bisect import bisect_right
from collections import defaultdict

from linker.elf_file import (
    ABSOLUTE,
    SYMBOL,
    ElfFile,
    ElfType,
    ProgramSegment,
    SectionType,
    Strings,
    symbol_entry,
)
from linker.image import Image, ImageSection, ImageSymbol
from linker.objects import Binding, SectionFlag, SymbolKind

__all__ = ["write_executable"]

_PAGE = 0x1000
_STT_FILE = 4
_PF_EXEC, _PF_WRITE, _PF_READ = 1, 2, 4


def write_executable(image: Image, *, base: int = 0, data: bytes | None = None) -> bytes:
    """The image as an ELF32 executable for i386.

    `base` is added to every address. `data` stands in for the image's own bytes, where
    something was filled in after the link.
    """
    contents = image.data if data is None else data
    file = ElfFile(segments=len(image.sections))
    # Where in its page a byte lies, it lies in the file too.
    file.data += bytes((image.base + base - len(file.data)) % _PAGE)
    origin = len(file.data)
    file.data += contents[: len(image.data)]
    segments = []
    for section in image.sections:
        offset = origin + section.address - image.base
        address = (section.address + base) & 0xFFFFFFFF
        file.describe(
            section.name,
            SectionType.NOBITS if section.nobits else SectionType.PROGBITS,
            offset,
            section.size,
            address=address,
            flags=int(section.flags),
            alignment=section.alignment,
        )
        in_file = 0 if section.nobits else section.size
        segments.append(
            ProgramSegment(
                offset, address, in_file, section.size, _permissions(section), section.alignment
            )
        )
    table = _Table(image, base)
    file.add_symbols(bytes(table.data), table.strings, table.first_global)
    entry = 0 if image.entry is None else (image.entry + base) & 0xFFFFFFFF
    return file.finish(ElfType.EXECUTABLE, entry=entry, segments=segments)


def _permissions(section: ImageSection) -> int:
    write = _PF_WRITE if SectionFlag.WRITE in section.flags else 0
    execute = _PF_EXEC if SectionFlag.EXEC in section.flags else 0
    return _PF_READ | write | execute


class _Table:
    """The symbol table: sections, then each object's own symbols after its name, then globals."""

    def __init__(self, image: Image, base: int) -> None:
        self._image = image
        self._base = base
        self._indices = {section.name: n for n, section in enumerate(image.sections, 1)}
        self._ends = _ends(image)
        self.strings = Strings()
        self.data = bytearray(SYMBOL.size)
        for section in image.sections:
            self._add(
                "", section.address + base, 0, Binding.LOCAL, SymbolKind.SECTION,
                self._indices[section.name],
            )  # fmt: skip
        by_object: defaultdict[str, list[ImageSymbol]] = defaultdict(list)
        for label in image.labels:
            if not label.is_global:
                by_object[label.object].append(label)
        for name, labels in by_object.items():
            self._add(name, 0, 0, Binding.LOCAL, _STT_FILE, ABSOLUTE)
            for label in labels:
                self._label(label, Binding.LOCAL)
        self.first_global = len(self.data) // SYMBOL.size
        for label in image.labels:
            if label.is_global:
                self._label(label, Binding.GLOBAL)

    def _add(self, name: str, value: int, size: int, binding: int, kind: int, section: int) -> None:
        self.data += symbol_entry(self.strings, name, value, size, binding, kind, section)

    def _label(self, label: ImageSymbol, binding: Binding) -> None:
        if label.is_number:
            self._add(label.name, label.address, label.size, binding, label.kind, ABSOLUTE)
            return
        section = self._section(label)
        kind, size = label.kind, label.size
        end = self._ends.get(label)
        if end is not None and section is not None:
            if kind == SymbolKind.NOTYPE:
                code = SectionFlag.EXEC in section.flags
                kind = SymbolKind.FUNCTION if code else SymbolKind.OBJECT
            size = size or end - label.address
        index = ABSOLUTE if section is None else self._indices[section.name]
        self._add(label.name, label.address + self._base, size, binding, kind, index)

    def _section(self, label: ImageSymbol) -> ImageSection | None:
        """The section a symbol lies in; a symbol of the script may mark the end of one."""
        found = None
        for section in self._image.sections:
            if label.section == section.name:
                return section
            if section.address <= label.address <= section.address + section.size:
                found = section
        return found if not label.section else None


def _ends(image: Image) -> dict[ImageSymbol, int]:
    """Where the places that a reader of symbols cares for end.

    These are the global labels of input sections, and the local ones that their source
    has given a type; other local labels are places inside them.
    """
    pieces = sorted(
        (piece.address, piece.address + piece.size)
        for section in image.sections
        for piece in section.pieces
    )
    starts = [start for start, _ in pieces]
    stops: defaultdict[int, set[int]] = defaultdict(set)
    holder: dict[ImageSymbol, int] = {}
    for label in image.labels:
        number = bisect_right(starts, label.address) - 1
        named = label.is_global or label.kind != SymbolKind.NOTYPE
        if named and label.section and number >= 0 and label.address < pieces[number][1]:
            stops[number].add(label.address)
            holder[label] = number
    return {
        label: min(
            (stop for stop in stops[number] if stop > label.address), default=pieces[number][1]
        )
        for label, number in holder.items()
    }
