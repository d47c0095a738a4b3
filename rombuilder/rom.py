"""The VMI ROM: assembled, linked, and finished with lengths and checksums."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from linker.elf_image import write_executable
from linker.image import Image
from linker.link import link
from linker.map import render_map
from linker.objects import ObjectFile
from linker.script_parser import read_script
from rombuilder.assembler import assemble
from rombuilder.errors import BuildError, QueueCapacityError
from rombuilder.flavour import DEFAULT_CALLS, Calls, Flavour, Visibility
from rombuilder.replace import replace_calls
from rombuilder.sources import rom_dir
from vmi.header import (
    BLOCK_SIZE,
    GET_RELOC,
    MAX_IMAGE_SIZE,
    VMI_DEVICE,
    VMI_INIT,
    VMI_VENDOR,
    HeaderError,
    Pcir,
    Pnp,
    RomHeader,
    checksum,
)
from vmi.queue import DEFAULT_CAPACITY, MAX_CAPACITY
from vmi.symbols import assembler_symbols

__all__ = ["Calls", "Flavour", "Rom", "Visibility", "build_rom", "rom_objects"]

_SCRIPT = "rom.ld"
_HEADER = "header.S"
_DISPATCH = "dispatch.o"

# Offsets of what only a finished image knows (sources: see vmi.header).
_ROM_LENGTH = 0x02
_PCIR_LENGTH = 0x10
_PNP_CHECKSUM = 0x09
_NEAR_JUMP = 0xE9
_WORD = 0xFFFF

_NO_DEFINES: Mapping[str, int] = MappingProxyType({})
_NO_REPLACEMENTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rom:
    """A finished ROM. `data` is the image as firmware takes it, padded to whole blocks."""

    data: bytes
    flavour: Flavour
    calls: Calls
    queue: int
    """Capacity of the batch queue in records; meaningless for the identity flavour."""
    visibility: Visibility
    """Meaningless for the identity flavour, too."""
    timer: bool
    """Are the timer calls offered to a guest of a host that serves alarms?"""
    pci: tuple[int, int]
    """Vendor and device of the PCI device that firmware takes it from."""
    image: Image
    """What was linked, before lengths and checksums were filled in."""

    @property
    def symbols(self) -> Mapping[str, int]:
        """Global symbols by name, as offsets into the image."""
        return self.image.symbols

    @property
    def sha256(self) -> str:
        """The image's SHA-256, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    def map_text(self) -> str:
        """A map of the image like ld's."""
        return render_map(self.image)

    def elf(self, base: int = 0) -> bytes:
        """An ELF executable of the image and its symbols, at `base` in place of 0."""
        return write_executable(self.image, base=base, data=self.data)


def rom_objects(
    flavour: Flavour,
    *,
    queue: int,
    calls: Calls,
    visibility: Visibility = Visibility.TLB,
    timer: bool = True,
    objects: Sequence[ObjectFile] = (),
    replace: Mapping[str, str] = _NO_REPLACEMENTS,
    defines: Mapping[str, int] = _NO_DEFINES,
) -> list[ObjectFile]:
    """Assemble the ROM's sources, header first, the others by name, then `objects`.

    `replace` says which functions serve which calls, in place of the ROM's own.
    Raises `BuildError`.
    """
    folder = rom_dir()
    symbols = {
        **assembler_symbols(),
        "FLAVOUR_BATCHING": int(flavour is Flavour.BATCHING),
        "CALLS_ALL": int(calls is Calls.ALL),
        "VISIBILITY_STRICT": int(visibility is Visibility.STRICT),
        "TIMER_CALLS": int(timer),
        "QUEUE_CAPACITY": queue,
        **defines,
    }
    sources = sorted(folder.glob("*.S"), key=lambda path: (path.name != _HEADER, path.name))
    own = [assemble(source, symbols=symbols, include_dirs=[folder]) for source in sources]
    for obj in own:
        if obj.name == _DISPATCH:
            replace_calls(obj, replace)
    return [*own, *objects]


def build_rom(
    flavour: Flavour = Flavour.BATCHING,
    *,
    queue: int = DEFAULT_CAPACITY,
    calls: Calls | None = None,
    visibility: Visibility = Visibility.TLB,
    timer: bool = True,
    pci: tuple[int, int] = (VMI_VENDOR, VMI_DEVICE),
    objects: Sequence[ObjectFile] = (),
    replace: Mapping[str, str] = _NO_REPLACEMENTS,
    defines: Mapping[str, int] = _NO_DEFINES,
) -> Rom:
    """Build a ROM from source; the same arguments give the same bytes.

    `queue` is the batch queue's capacity in records. `calls` defaults to all for
    the identity flavour and to the needed ones for batching; to that alone matter
    `visibility` and `timer`, whether the timer calls are offered to a guest of a host that
    serves alarms. `pci` is vendor and device of the card whose ROM it is to
    be: firmware takes it from no other, Linux takes any and warns. `objects` are
    linked with the ROM's own, and `replace` has calls served by functions of theirs.
    `defines` are further assembly-time symbols. Raises `BuildError` or `LinkError`.
    """
    # A plain string is equal to its member but is not it.
    flavour, visibility = Flavour(flavour), Visibility(visibility)
    if not 1 <= queue <= MAX_CAPACITY:
        raise QueueCapacityError(queue, MAX_CAPACITY)
    calls = calls or DEFAULT_CALLS[flavour]
    vendor, device = pci
    if not (0 <= vendor <= _WORD and 0 <= device <= _WORD):
        raise BuildError(f"PCI device {vendor:#x}:{device:#x}: each number has 16 bits")
    defines = {"VMI_VENDOR": vendor, "VMI_DEVICE": device, **defines}
    image = link(
        rom_objects(
            flavour,
            queue=queue,
            calls=calls,
            visibility=visibility,
            timer=timer,
            objects=objects,
            replace=replace,
            defines=defines,
        ),
        read_script(rom_dir() / _SCRIPT),
        position_independent=("*",),
        size_limit=MAX_IMAGE_SIZE,
    )
    if flavour is Flavour.IDENTITY and image.symbols["__data_size"]:
        raise _unwritable(image)
    return Rom(_finish(image), flavour, calls, queue, visibility, timer, pci, image)


def _unwritable(image: Image) -> BuildError:
    """Data in a flavour that has nowhere to write."""
    piece = next(piece for piece in image.section(".data").pieces if piece.size)
    return BuildError(
        f"{piece.object}: section {piece.section} of {piece.size} bytes is to be written, "
        f"and nobody makes memory of the {Flavour.IDENTITY} flavour writable"
    )


def _finish(image: Image) -> bytes:
    """Pad the image, fill in its lengths and make its sums come out."""
    end = image.symbols["__rom_end"]
    size = -(-max(end, len(image.data)) // BLOCK_SIZE) * BLOCK_SIZE
    if size > MAX_IMAGE_SIZE:
        raise BuildError(f"ROM of {size} bytes: its length field holds at most {MAX_IMAGE_SIZE}")
    data = bytearray(image.data.ljust(size, b"\0"))
    _check_entry(image, data, VMI_INIT, "vmi_init")
    _check_entry(image, data, GET_RELOC, "get_reloc")
    blocks = size // BLOCK_SIZE
    data[_ROM_LENGTH] = blocks
    try:
        header = RomHeader.parse(bytes(data))
        Pcir.parse(bytes(data), header.pcir_offset)
        pcir = header.pcir_offset + _PCIR_LENGTH
        data[pcir : pcir + 2] = blocks.to_bytes(2, "little")
        if header.pnp_offset:
            pnp = Pnp.parse(bytes(data), header.pnp_offset)
            whole = data[header.pnp_offset : header.pnp_offset + pnp.length]
            at = header.pnp_offset + _PNP_CHECKSUM
            data[at] = (data[at] - checksum(bytes(whole))) & 0xFF
    except HeaderError as error:
        raise BuildError(f"the linked ROM has no proper headers: {error}") from error
    at = image.symbols["__checksum"]
    data[at] = (data[at] - checksum(bytes(data))) & 0xFF
    return bytes(data)


def _check_entry(image: Image, data: bytearray, offset: int, symbol: str) -> None:
    """Does the entry at a fixed offset jump to the code it is for?"""
    jump = data[offset : offset + 5]
    target = (int.from_bytes(jump[1:], "little") + offset + 5) & 0xFFFFFFFF
    if jump[0] != _NEAR_JUMP or target != image.symbols.get(symbol):
        raise BuildError(
            f"the entry at {offset:#x} must be a jump to {symbol}, found the bytes {jump.hex(' ')}"
        )
