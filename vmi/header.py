"""The structures that a VMI ROM image carries: option ROM header, PCIR, $PnP.

Layouts: PCI Firmware Specification 3.0 section 5.1 (PCIR), Plug and Play BIOS
Specification 1.0A section 3.2 ($PnP), Linux asm/vmi.h (the VMI header).
"""

import struct
from dataclasses import dataclass
from typing import Any

from vmi.address import RomOffset

__all__ = [
    "BLOCK_SIZE",
    "ENTRY_16",
    "GET_RELOC",
    "LICENSES",
    "MAX_IMAGE_SIZE",
    "PCIR_SIGNATURE",
    "PNP_SIGNATURE",
    "ROM_SIGNATURE",
    "VMI_DEVICE",
    "VMI_INIT",
    "VMI_VENDOR",
    "VROM_SIGNATURE",
    "HeaderError",
    "Pcir",
    "Pnp",
    "RomHeader",
    "checksum",
]

ROM_SIGNATURE = 0xAA55
VROM_SIGNATURE = 0x696D5663
"""The bytes "cVmi"."""
PCIR_SIGNATURE = b"PCIR"
PNP_SIGNATURE = b"$PnP"

BLOCK_SIZE = 512
"""The unit of every length field."""
MAX_IMAGE_SIZE = 255 * BLOCK_SIZE

ENTRY_16 = RomOffset(0x03)
"""16-bit entry code, far-called by firmware."""
VMI_INIT = RomOffset(0x80)
GET_RELOC = RomOffset(0x88)

VMI_VENDOR = 0x15AD
VMI_DEVICE = 0x0801

LICENSES = (b"GPL", b"GPL v2")
"""The only licence strings that Linux takes."""


class HeaderError(ValueError):
    """A structure in a ROM image is not what its specification says."""


class _Layout:
    """A little-endian structure: field names, and how `struct` reads them."""

    def __init__(self, form: str, *names: str) -> None:
        self._struct = struct.Struct(f"<{form}")
        self._names = names
        self.size = self._struct.size

    def parse(self, data: bytes) -> dict[str, Any]:
        """The fields by name; `data` has exactly the structure's size."""
        return dict(zip(self._names, self._struct.unpack(data), strict=True))


_ROM = _Layout(
    "HB4sxIBBBxI2xHHH4x",
    "rom_signature",
    "rom_length",
    "rom_entry",
    "vrom_signature",
    "api_minor",
    "api_major",
    "jump_slots",
    "virtual_top",
    "license_offset",
    "pcir_offset",
    "pnp_offset",
)

_PCIR = _Layout(
    "4sHHHHB3sHHBB2x",
    "signature",
    "vendor",
    "device",
    "list_offset",
    "length",
    "revision",
    "class_code",
    "image_blocks",
    "code_revision",
    "code_type",
    "indicator",
)

# What revision 3 adds.
_PCIR_3 = _Layout("HHH", "runtime_blocks", "utility_offset", "clp_offset")
_PCIR_3_OFFSET = 0x16
_PCIR_3_REVISION = 3

_PNP = _Layout(
    "4sBBHxBIHH3sBHHH2xH",
    "signature",
    "revision",
    "length_paragraphs",
    "next_offset",
    "checksum",
    "device_id",
    "manufacturer_offset",
    "product_offset",
    "device_type",
    "indicators",
    "boot_connection",
    "disconnect",
    "bootstrap",
    "static_resources",
)


def checksum(data: bytes) -> int:
    """The sum of all bytes mod 256; an option ROM image sums to 0."""
    return sum(data) & 0xFF


def _slice(image: bytes, offset: int, size: int, what: str) -> bytes:
    if offset + size > len(image):
        raise HeaderError(
            f"{what} at {offset:#x} needs {size} bytes, but the image ends at {len(image):#x}"
        )
    return image[offset : offset + size]


@dataclass(frozen=True, slots=True)
class RomHeader:
    """The header at offset 0 of a VMI ROM. Lengths in blocks of 512 bytes."""

    rom_signature: int
    rom_length: int
    rom_entry: bytes
    vrom_signature: int
    api_minor: int
    api_major: int
    jump_slots: int
    virtual_top: int
    license_offset: RomOffset
    pcir_offset: RomOffset
    pnp_offset: RomOffset

    @classmethod
    def parse(cls, image: bytes) -> "RomHeader":
        """Read the header; raises `HeaderError` when the image is too short for one.

        Values are not judged: a ROM that is not a VMI ROM parses too.
        """
        raw = _ROM.parse(_slice(image, 0, _ROM.size, "ROM header"))
        return cls(**{name: raw[name] for name in cls.__slots__})

    @property
    def size(self) -> int:
        """Bytes that the image claims."""
        return self.rom_length * BLOCK_SIZE

    @property
    def is_vmi(self) -> bool:
        """Does a Linux guest's scan stop here?"""
        return self.rom_signature == ROM_SIGNATURE and self.vrom_signature == VROM_SIGNATURE


@dataclass(frozen=True, slots=True)
class Pcir:
    """The PCI data structure. `class_code` is base class, subclass, interface.

    `list_offset` counts from the structure: to vital product data up to revision 2, to
    a list of further device ids from 3 on. Only from there are the last fields used: the
    image's size at run time in blocks, and the places of a configuration utility's header
    and of the entry for command lines (DMTF CLP).
    """

    vendor: int
    device: int
    length: int
    class_code: tuple[int, int, int]
    image_blocks: int
    code_revision: int
    code_type: int
    indicator: int
    revision: int = 0
    list_offset: int = 0
    runtime_blocks: int = 0
    utility_offset: int = 0
    clp_offset: int = 0

    @classmethod
    def parse(cls, image: bytes, offset: RomOffset) -> "Pcir":
        """Read it at `offset`; raises `HeaderError` when it is not there."""
        data = _slice(image, offset, _PCIR.size, "PCI data structure")
        raw = _PCIR.parse(data)
        if raw["signature"] != PCIR_SIGNATURE:
            raise HeaderError(
                f"PCI data structure at {offset:#x} starts with {data[:4]!r}, "
                f"expected {PCIR_SIGNATURE!r}"
            )
        interface, subclass, base = raw["class_code"]
        more: dict[str, int] = {}
        if raw["revision"] >= _PCIR_3_REVISION and raw["length"] >= _PCIR_3_OFFSET + _PCIR_3.size:
            start = offset + _PCIR_3_OFFSET
            found = _PCIR_3.parse(_slice(image, start, _PCIR_3.size, "PCI data structure"))
            more = {
                name: found[name] for name in ("runtime_blocks", "utility_offset", "clp_offset")
            }
        return cls(
            raw["vendor"],
            raw["device"],
            raw["length"],
            (base, subclass, interface),
            raw["image_blocks"],
            raw["code_revision"],
            raw["code_type"],
            raw["indicator"],
            raw["revision"],
            raw["list_offset"],
            **more,
        )

    @property
    def is_last(self) -> bool:
        """Is this the last image in the ROM?"""
        return bool(self.indicator & 0x80)


@dataclass(frozen=True, slots=True)
class Pnp:
    """The Plug and Play expansion header. Offsets are from the start of the image."""

    revision: int
    length: int
    next_offset: RomOffset
    checksum_ok: bool
    manufacturer_offset: RomOffset
    product_offset: RomOffset
    bootstrap: RomOffset

    @classmethod
    def parse(cls, image: bytes, offset: RomOffset) -> "Pnp":
        """Read it at `offset`; raises `HeaderError` when it is not there."""
        data = _slice(image, offset, _PNP.size, "PnP header")
        raw = _PNP.parse(data)
        if raw["signature"] != PNP_SIGNATURE:
            raise HeaderError(
                f"PnP header at {offset:#x} starts with {data[:4]!r}, expected {PNP_SIGNATURE!r}"
            )
        length = raw["length_paragraphs"] * 16
        whole = _slice(image, offset, length, "PnP header")
        return cls(
            raw["revision"],
            length,
            RomOffset(raw["next_offset"]),
            checksum(whole) == 0,
            RomOffset(raw["manufacturer_offset"]),
            RomOffset(raw["product_offset"]),
            RomOffset(raw["bootstrap"]),
        )
