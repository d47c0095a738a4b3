"""The bare guests: assembled and linked into flat multiboot images."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from linker.image import Image
from linker.link import link
from linker.map import render_map
from linker.objects import ObjectFile
from linker.script_parser import read_script
from rombuilder.assembler import assemble
from rombuilder.errors import BuildError
from rombuilder.sources import guests_dir
from vmi.address import GuestPhysical, GuestVirtual
from vmi.symbols import assembler_symbols

__all__ = [
    "KERNEL_BASE",
    "GuestImage",
    "UnknownGuestError",
    "build_guest",
    "guest_names",
    "guest_object",
    "guest_summary",
]

KERNEL_BASE = GuestVirtual(0xC0000000)
"""What a guest's linear map adds to a physical address (guests/guest.ld)."""

_SCRIPT = "guest.ld"
_SUMMARY = "# summary:"

_NO_DEFINES: Mapping[str, int] = MappingProxyType({})


class UnknownGuestError(BuildError):
    """There is no guest of this name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"unknown guest {name!r}; there are {', '.join(known) or 'none'}")
        self.name = name
        self.known = known


@dataclass(frozen=True, slots=True)
class GuestImage:
    """A guest ready to load: `data` goes to the physical `load_address`."""

    name: str
    summary: str
    data: bytes
    load_address: GuestPhysical
    image: Image

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


def guest_names() -> list[str]:
    """The built-in guests, by name. Raises `BuildError` when the sources are missing."""
    return sorted(path.stem for path in guests_dir().glob("*.S"))


def guest_summary(name: str) -> str:
    """What a guest does, in its own one-line words. Raises `UnknownGuestError`."""
    known = guest_names()
    if name not in known:
        raise UnknownGuestError(name, known)
    source = guests_dir() / f"{name}.S"
    for line in source.read_text(encoding="ascii").splitlines():
        if line.startswith(_SUMMARY):
            return line.removeprefix(_SUMMARY).strip()
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
    image = link([guest_object(name, defines=defines)], read_script(guests_dir() / _SCRIPT))
    return GuestImage(name, summary, image.data, GuestPhysical(image.base - KERNEL_BASE), image)
