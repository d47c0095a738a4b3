"""What a user names on the command line: a guest and ROMs, by name or by file."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from bench.symbols import SymbolMap
from rombuilder.flavour import Flavour, Visibility
from rombuilder.romcache import rom_image
from rombuilder.sources import guest_names, guests_dir
from vmi.queue import DEFAULT_CAPACITY
from vmm.core.errors import BadDescription
from vmm.devices.disk import SECTOR_SIZE
from vmm.machine import MachineDescription

__all__ = [
    "Guest",
    "RomChoice",
    "load_guest",
    "load_initrd",
    "load_rom",
    "machine_with",
    "patterned_disk",
]

NO_ROM = "none"
_SOURCE = ".S"


_NO_SYMBOLS = SymbolMap({})


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest image with the name it is reported by, and names for its addresses.

    `disk` is the image that its machine gets for want of any other, empty for none.
    """

    name: str
    image: bytes
    symbols: SymbolMap = _NO_SYMBOLS
    disk: bytes = b""


@dataclass(frozen=True, slots=True)
class RomChoice:
    """A ROM image, or none, with the name it is reported by. `queue` is in records.

    `queue`, `calls` and `visibility` are none where they mean nothing or are not known.
    """

    name: str
    image: bytes | None = None
    queue: int | None = None
    calls: str | None = None
    visibility: str | None = None

    @property
    def sha256(self) -> str | None:
        """The image's SHA-256, in hex; none without a ROM."""
        return None if self.image is None else hashlib.sha256(self.image).hexdigest()


def _read(name: str, what: str, known: str) -> bytes:
    if not name:
        raise BadDescription(f"{what} {name!r}: expected a file or one of {known}")
    try:
        return Path(name).read_bytes()
    except FileNotFoundError:
        raise BadDescription(f"{what} {name!r}: no such file, and not one of {known}") from None
    except OSError as error:
        raise BadDescription(f"{what} {name!r}: {error.strerror or error}") from None


def load_guest(name: str) -> Guest:
    """A built-in guest, a guest in assembly (a file *.S), or an image in a file.

    Raises `BadDescription` when there is none of these, `BuildError` or `LinkError`
    when the source cannot be built.
    """
    known = guest_names()
    if name in known:
        # Loading what builds guests takes as long as a tenth of a boot.
        from rombuilder.guest import build_guest, guest_disk  # noqa: PLC0415

        built = build_guest(name)
        sectors = guest_disk(guests_dir() / f"{name}{_SOURCE}")
        return Guest(name, built.data, SymbolMap(built.symbols), patterned_disk(sectors))
    image = _read(name, "guest", f"the built-in guests {', '.join(known)}")
    path = Path(name)
    if path.suffix == _SOURCE:
        return _build(path)
    return Guest(path.name, image)


def patterned_disk(sectors: int) -> bytes:
    """A disk image that no two sectors of are alike: byte n of sector s is 7 (512 s + n) + s."""
    return b"".join(
        bytes(
            (7 * at + sector) & 0xFF
            for at in range(sector * SECTOR_SIZE, (sector + 1) * SECTOR_SIZE)
        )
        for sector in range(sectors)
    )


def machine_with(about: MachineDescription, guest: Guest, rom: RomChoice) -> MachineDescription:
    """The machine that `about` describes with this guest and ROM.

    It has the guest's disk unless `about` names another.
    """
    disk = about.disk if about.disk is not None else guest.disk or None
    return replace(about, guest=guest.image, rom=rom.image, disk=disk)


def _build(source: Path) -> Guest:
    from linker.link import link  # noqa: PLC0415 - as above
    from linker.script_parser import read_script  # noqa: PLC0415
    from rombuilder.assembler import assemble  # noqa: PLC0415
    from rombuilder.guest import guest_disk, guest_layout  # noqa: PLC0415
    from vmi.symbols import assembler_symbols  # noqa: PLC0415

    folder = guests_dir()
    built = assemble(source, symbols=assembler_symbols(), include_dirs=[folder, folder / "lib"])
    image = link([built], read_script(guest_layout(source)))
    symbols = {label.name: label.address for label in image.labels}
    disk = patterned_disk(guest_disk(source))
    return Guest(source.stem, image.data, SymbolMap(symbols), disk)


def load_initrd(path: Path | None) -> bytes | None:
    """The initial RAM disk in a file; raises `BadDescription` when it cannot be read."""
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadDescription(f"initrd {str(path)!r}: {error.strerror or error}") from None


def load_rom(
    name: str, queue: int = DEFAULT_CAPACITY, visibility: Visibility = Visibility.TLB
) -> RomChoice:
    """`none`, a flavour built from source, or a ROM image in a file.

    `queue` is the capacity of the batching flavour's queue, `visibility` says when it
    tells of changes. Raises `BadDescription` when `name` is none of these.
    """
    if name == NO_ROM:
        return RomChoice(name)
    if name in {flavour.value for flavour in Flavour}:
        flavour = Flavour(name)
        image, calls = rom_image(flavour, queue, visibility)
        batching = flavour is Flavour.BATCHING
        return RomChoice(
            name,
            image,
            queue if batching else None,
            calls.value,
            visibility.value if batching else None,
        )
    image = _read(name, "ROM", ", ".join([NO_ROM, *(flavour.value for flavour in Flavour)]))
    return RomChoice(Path(name).name, image)
