"""The bare guests: assembled and linked into flat multiboot images."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from linker.image import Image
from linker.link import link
from linker.map import render_map
from linker.objects import ObjectFile
from linker.script_parser import read_script
from rombuilder.assembler import assemble
from rombuilder.errors import BuildError
from rombuilder.sources import guest_names, guests_dir
from vmi.address import GuestPhysical, GuestVirtual
from vmi.symbols import assembler_symbols

__all__ = [
    "KERNEL_BASE",
    "GuestImage",
    "UnknownGuestError",
    "build_guest",
    "guest_disk",
    "guest_layout",
    "guest_names",
    "guest_object",
    "guest_summary",
]

KERNEL_BASE = GuestVirtual(0xC0000000)
"""What a guest's linear map adds to a physical address (guests/guest.ld)."""

_SUMMARY = "# summary:"
_LAYOUT = "# layout:"
_DISK = "# disk:"
_DEFAULT_LAYOUT = "guest.ld"
_BASES = {_DEFAULT_LAYOUT: KERNEL_BASE, "flat.ld": GuestVirtual(0)}
"""What each layout adds to a physical address."""

_NO_DEFINES: Mapping[str, int] = MappingProxyType({})


class UnknownGuestError(BuildError):
    """There is no guest of this name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"unknown guest {name!r}; there are {', '.join(known) or 'none'}")
        self.name = name
        self.known = known


@dataclass(frozen=True, slots=True)
class GuestImage:
    """A guest ready to load: `data` goes to the physical `load_address`.

    `kernel_base` is what its linear map adds to a physical address: 0 for one without paging.
    """

    name: str
    summary: str
    data: bytes
    load_address: GuestPhysical
    image: Image
    kernel_base: GuestVirtual = KERNEL_BASE

    @property
    def symbols(self) -> Mapping[str, int]:
        """Global symbols by name, as virtual addresses."""
        return self.image.symbols

    @property
    def sha256(self) -> str:
        """The image's SHA-256, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    def map_text(self) -> str:
        """A map of the image like ld's."""
        return render_map(self.image)


def guest_summary(name: str) -> str:
    """What a guest does, in its own one-line words. Raises `UnknownGuestError`."""
    known = guest_names()
    if name not in known:
        raise UnknownGuestError(name, known)
    return _directive(guests_dir() / f"{name}.S", _SUMMARY)


def guest_disk(source: Path) -> int:
    """How many sectors of disk a guest wants for want of any other ("# disk:" in its head).

    Raises `BuildError` for what is no number.
    """
    sectors = _directive(source, _DISK) or "0"
    if not sectors.isdecimal():
        raise BuildError(f"{source.name}: disk {sectors!r}, expected a number of sectors")
    return int(sectors)


def guest_layout(source: Path) -> Path:
    """The linker script of a guest's source, which may name one in its head ("# layout:").

    Raises `BuildError` for a layout that there is not.
    """
    name = _directive(source, _LAYOUT) or _DEFAULT_LAYOUT
    if name not in _BASES:
        raise BuildError(f"{source.name}: layout {name!r}, expected one of {', '.join(_BASES)}")
    return guests_dir() / name


def _directive(source: Path, key: str) -> str:
    """What a comment in the head of a source says; empty where there is none."""
    for line in source.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(key):
            return line.removeprefix(key).strip()
        if line and not line.startswith("#"):
            break
    return ""


def guest_object(name: str, *, defines: Mapping[str, int] = _NO_DEFINES) -> ObjectFile:
    """Assemble a guest's source. Raises `BuildError`."""
    folder = guests_dir()
    return assemble(
        folder / f"{name}.S",
        symbols={**assembler_symbols(), **defines},
        include_dirs=[folder, folder / "lib"],
    )


def build_guest(name: str, *, defines: Mapping[str, int] = _NO_DEFINES) -> GuestImage:
    """Build a guest from source; the same arguments give the same bytes.

    `defines` are further assembly-time symbols. Raises `UnknownGuestError`, another
    `BuildError` or a `LinkError`.
    """
    summary = guest_summary(name)
    layout = guest_layout(guests_dir() / f"{name}.S")
    image = link([guest_object(name, defines=defines)], read_script(layout))
    base = _BASES[layout.name]
    return GuestImage(name, summary, image.data, GuestPhysical(image.base - base), image, base)
