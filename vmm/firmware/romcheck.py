"""What firmware and guest demand of a ROM image before they touch it."""

from vmi.calls import API_MAJOR
from vmi.header import (
    BLOCK_SIZE,
    ROM_SIGNATURE,
    VROM_SIGNATURE,
    HeaderError,
    Pcir,
    RomHeader,
    checksum,
)
from vmm.core.errors import BadDescription

__all__ = ["check_option_rom", "check_vmi_rom"]

_PC_AT = 0
"""Code type of the PCI data structure: x86 PC-AT."""


def check_option_rom(image: bytes, vendor: int, device: int) -> RomHeader:
    """Judge an expansion ROM as SeaBIOS does, before it is copied.

    Answers its header; raises `BadDescription` naming what was found and expected.
    """
    try:
        header = RomHeader.parse(image)
        if header.rom_signature != ROM_SIGNATURE:
            raise BadDescription(
                f"ROM signature {header.rom_signature:#06x}, expected {ROM_SIGNATURE:#06x}"
            )
        if not header.size:
            raise BadDescription("ROM length is 0 blocks, expected 1 to 255")
        if header.size > len(image):
            raise BadDescription(
                f"ROM is truncated: its header says {header.size} bytes "
                f"({header.rom_length} blocks of {BLOCK_SIZE}), but there are {len(image)}"
            )
        total = checksum(image[: header.size])
        if total:
            raise BadDescription(f"ROM checksum: bytes sum to {total:#04x}, expected 0")
        pcir = Pcir.parse(image, header.pcir_offset)
    except HeaderError as error:
        raise BadDescription(f"ROM: {error}") from None
    if (pcir.vendor, pcir.device) != (vendor, device):
        raise BadDescription(
            f"ROM is for PCI device {pcir.vendor:04x}:{pcir.device:04x}, "
            f"but sits on {vendor:04x}:{device:04x}"
        )
    if pcir.code_type != _PC_AT:
        raise BadDescription(f"ROM code type {pcir.code_type}, expected {_PC_AT} (PC-AT)")
    return header


def check_vmi_rom(image: bytes) -> None:
    """Is this a ROM that a VMI guest takes? Raises `BadDescription` if not."""
    try:
        header = RomHeader.parse(image)
    except HeaderError as error:
        raise BadDescription(f"ROM: {error}") from None
    if header.vrom_signature != VROM_SIGNATURE:
        raise BadDescription(
            f"not a VMI ROM: signature {header.vrom_signature:#010x}, "
            f"expected {VROM_SIGNATURE:#010x}"
        )
    if header.api_major != API_MAJOR:
        raise BadDescription(
            f"ROM has VMI API version {header.api_major}.{header.api_minor}, expected {API_MAJOR}.x"
        )
