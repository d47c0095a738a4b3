"""The images in a ROM file: one for each kind of code that a card brings.

Sources: PCI Firmware Specification 3.0, chapter 5 (images, PCIR revisions 0 and 3), UEFI
2.x, "PCI Option ROMs" (EFI images), Plug and Play BIOS Specification 1.0A, section 3.1
(chains of $PnP headers).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from construct import Const, ConstructError, Int16ul, Int32ul, Padding, Struct

from vmi.address import RomOffset
from vmi.header import (
    BLOCK_SIZE,
    PCIR_SIGNATURE,
    PNP_SIGNATURE,
    ROM_SIGNATURE,
    HeaderError,
    Pcir,
    Pnp,
)

__all__ = ["CODE_TYPES", "EfiHeader", "OptionImage", "has_pcir", "option_images", "pnp_chain"]

CODE_TYPES = {0: "PC-AT", 1: "Open Firmware", 2: "PA-RISC", 3: "EFI"}
_PC_AT, _EFI = 0, 3
_PCIR_FIELD = 0x18
_PNP_FIELD = 0x1A
_LENGTH_FIELD = 2
_MOST_IMAGES = 64
_MOST_DEVICES = 256

_MACHINES = {
    0x014C: "IA-32",
    0x0200: "Itanium",
    0x0EBC: "EBC",
    0x01C2: "ARM",
    0x8664: "x64",
    0xAA64: "AArch64",
    0x5064: "RISC-V 64",
}
_SUBSYSTEMS = {11: "boot service driver", 12: "runtime driver"}

_EFI_HEADER = Struct(
    "signature" / Const(ROM_SIGNATURE, Int16ul),
    "blocks" / Int16ul,
    "efi_signature" / Const(0x0EF1, Int32ul),
    "subsystem" / Int16ul,
    "machine" / Int16ul,
    "compression" / Int16ul,
    Padding(8),
    "image_offset" / Int16ul,
)


@dataclass(frozen=True, slots=True)
class EfiHeader:
    """What an EFI image says of itself; names as in the specification, or the number in hex."""

    machine: str
    subsystem: str
    compressed: bool
    image_offset: int


@dataclass(frozen=True, slots=True)
class OptionImage:
    """One image: where it begins in the file, its claimed `size` in bytes, and its structures.

    Offsets in `pcir` and `pnp` are from the image's start, as are `pcir_offset` and the
    keys of `pnp`. `runtime_size` is what a legacy image keeps after its start, where PCIR
    says so. `devices` are the further device ids that it serves.
    """

    offset: int
    size: int
    pcir_offset: RomOffset
    pcir: Pcir | None
    devices: tuple[int, ...]
    runtime_size: int | None
    pnp: dict[RomOffset, Pnp]
    efi: EfiHeader | None

    @property
    def code_type(self) -> int:
        """Code type by PCIR; an image without one is for PCs."""
        return _PC_AT if self.pcir is None else self.pcir.code_type

    @property
    def kind(self) -> str:
        """The code type's name."""
        return CODE_TYPES.get(self.code_type, f"code type {self.code_type}")


def _word(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 2], "little")


def has_pcir(image: bytes) -> bool:
    """Does the word for it lead to a PCI data structure?"""
    at = _word(image, _PCIR_FIELD)
    return bool(at) and image[at : at + 4] == PCIR_SIGNATURE


def option_images(data: bytes) -> list[OptionImage]:
    """The images of a file, in order, as far as one leads to the next.

    What is damaged is left out; `rombuilder.inspect` says what is wrong with it.
    """
    found: list[OptionImage] = []
    at = 0
    while len(found) < _MOST_IMAGES and _word(data, at) == ROM_SIGNATURE and at + 3 <= len(data):
        image = _image(data, at)
        found.append(image)
        if image.pcir is None or image.pcir.is_last or not image.pcir.image_blocks:
            break
        at += image.pcir.image_blocks * BLOCK_SIZE
    return found


def _image(data: bytes, start: int) -> OptionImage:
    image = data[start:]
    offset = RomOffset(_word(image, _PCIR_FIELD))
    pcir = None
    if has_pcir(image):
        try:
            pcir = Pcir.parse(image, offset)
        except HeaderError:
            pcir = None
    size = image[_LENGTH_FIELD] * BLOCK_SIZE
    efi = None
    if pcir is not None and pcir.code_type != _PC_AT:
        size = pcir.image_blocks * BLOCK_SIZE
        if pcir.code_type == _EFI:
            efi = _efi(image)
    runtime = None
    if pcir is not None and pcir.runtime_blocks and pcir.code_type == _PC_AT:
        runtime = pcir.runtime_blocks * BLOCK_SIZE
    return OptionImage(
        start,
        size,
        offset,
        pcir,
        tuple(_devices(image, offset, pcir)),
        runtime,
        dict(pnp_chain(image)) if efi is None else {},
        efi,
    )


def _efi(image: bytes) -> EfiHeader | None:
    try:
        raw = _EFI_HEADER.parse(image)
    except ConstructError:
        return None
    return EfiHeader(
        _MACHINES.get(raw.machine, f"{raw.machine:#06x}"),
        _SUBSYSTEMS.get(raw.subsystem, f"{raw.subsystem:#06x}"),
        raw.compression != 0,
        raw.image_offset,
    )


def _devices(image: bytes, offset: int, pcir: Pcir | None) -> Iterator[int]:
    """The list of device ids: words, up to a 0."""
    if pcir is None or pcir.revision < 3 or not pcir.list_offset:
        return
    at = offset + pcir.list_offset
    for place in range(at, min(at + 2 * _MOST_DEVICES, len(image) - 1), 2):
        device = _word(image, place)
        if not device:
            return
        yield device


def pnp_chain(image: bytes) -> Iterator[tuple[RomOffset, Pnp]]:
    """Each $PnP header and its offset; a chain that goes in circles ends where it began to."""
    at = _word(image, _PNP_FIELD)
    seen: set[int] = set()
    while at and at not in seen and image[at : at + 4] == PNP_SIGNATURE:
        seen.add(at)
        try:
            header = Pnp.parse(image, RomOffset(at))
        except HeaderError:
            return
        yield RomOffset(at), header
        at = header.next_offset
