"""What linking yields: bytes, and where everything went."""

from collections.abc import Mapping
from dataclasses import dataclass

from linker.objects import SectionFlag, SymbolKind

__all__ = ["Image", "ImageSection", "ImageSymbol", "Piece"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One input section's place; `address` as linked, `size` in bytes."""

    object: str
    section: str
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class ImageSection:
    """An output section. `nobits` ones take addresses but no bytes of the image."""

    name: str
    address: int
    size: int
    alignment: int
    flags: SectionFlag
    nobits: bool
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class ImageSymbol:
    """A symbol as linked; `section` is empty for what the script or a number defines."""

    name: str
    address: int
    section: str
    object: str
    is_global: bool
    kind: SymbolKind = SymbolKind.NOTYPE
    size: int = 0
    is_number: bool = False
    """A plain number: it stays the same wherever the image lies."""


@dataclass(frozen=True, slots=True)
class Image:
    """A linked image.

    `data` starts at address `base` and ends with the last byte that a section
    loads. `symbols` holds globals and script symbols, `labels` every named place.
    """

    data: bytes
    base: int
    entry: int | None
    symbols: Mapping[str, int]
    labels: tuple[ImageSymbol, ...]
    sections: tuple[ImageSection, ...]
    discarded: tuple[Piece, ...]

    def section(self, name: str) -> ImageSection:
        """The output section of this name; raises `KeyError`."""
        for section in self.sections:
            if section.name == name:
                return section
        raise KeyError(name)
