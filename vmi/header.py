"""The structures that a VMI ROM image carries: option ROM header, PCIR, $PnP.

Layouts: PCI Firmware Specification 3.0 section 5.1 (PCIR), Plug and Play BIOS
Specification 1.0A section 3.2 ($PnP), Linux asm/vmi.h (the VMI header).
"""

from dataclasses import dataclass

from construct import Bytes, Const, ConstructError, Int8ul, Int16ul, Int32ul, Padding, Struct

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


_ROM = Struct(
    "rom_signature" / Int16ul,
    "rom_length" / Int8ul,
    "rom_entry" / Bytes(4),
    Padding(1),
    "vrom_signature" / Int32ul,
    "api_minor" / Int8ul,
    "api_major" / Int8ul,
    "jump_slots" / Int8ul,
    Padding(1),
    "virtual_top" / Int32ul,
    Padding(2),
    "license_offset" / Int16ul,
    "pcir_offset" / Int16ul,
    "pnp_offset" / Int16ul,
    Padding(4),
)

_PCIR = Struct(
    "signature" / Const(PCIR_SIGNATURE),
    "vendor" / Int16ul,
    "device" / Int16ul,
    "list_offset" / Int16ul,
    "length" / Int16ul,
    "revision" / Int8ul,
    "class_code" / Bytes(3),
    "image_blocks" / Int16ul,
    "code_revision" / Int16ul,
    "code_type" / Int8ul,
    "indicator" / Int8ul,
    Padding(2),
)

# What revision 3 adds.
_PCIR_3 = Struct(
    "runtime_blocks" / Int16ul,
    "utility_offset" / Int16ul,
    "clp_offset" / Int16ul,
)
_PCIR_3_OFFSET = 0x16
_PCIR_3_REVISION = 3

_PNP = Struct(
    "signature" / Const(PNP_SIGNATURE),
    "revision" / Int8ul,
    "length_paragraphs" / Int8ul,
    "next_offset" / Int16ul,
    Padding(1),
    "checksum" / Int8ul,
    "device_id" / Int32ul,
    "manufacturer_offset" / Int16ul,
    "product_offset" / Int16ul,
    "device_type" / Bytes(3),
    "indicators" / Int8ul,
    "boot_connection" / Int16ul,
    "disconnect" / Int16ul,
    "bootstrap" / Int16ul,
    Padding(2),
    "static_resources" / Int16ul,
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
        raw = _ROM.parse(_slice(image, 0, _ROM.sizeof(), "ROM header"))
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
        data = _slice(image, offset, _PCIR.sizeof(), "PCI data structure")
        try:
            raw = _PCIR.parse(data)
        except ConstructError:
            raise HeaderError(
                f"PCI data structure at {offset:#x} starts with {data[:4]!r}, "
                f"expected {PCIR_SIGNATURE!r}"
            ) from None
        interface, subclass, base = raw.class_code
        more: dict[str, int] = {}
        if raw.revision >= _PCIR_3_REVISION and raw.length >= _PCIR_3_OFFSET + _PCIR_3.sizeof():
            start = offset + _PCIR_3_OFFSET
            found = _PCIR_3.parse(_slice(image, start, _PCIR_3.sizeof(), "PCI data structure"))
            more = {
                name: found[name] for name in ("runtime_blocks", "utility_offset", "clp_offset")
            }
        return cls(
            raw.vendor,
            raw.device,
            raw.length,
            (base, subclass, interface),
            raw.image_blocks,
            raw.code_revision,
            raw.code_type,
            raw.indicator,
            raw.revision,
            raw.list_offset,
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
        data = _slice(image, offset, _PNP.sizeof(), "PnP header")
        try:
            raw = _PNP.parse(data)
        except ConstructError:
            raise HeaderError(
                f"PnP header at {offset:#x} starts with {data[:4]!r}, expected {PNP_SIGNATURE!r}"
            ) from None
        length = raw.length_paragraphs * 16
        whole = _slice(image, offset, length, "PnP header")
        return cls(
            raw.revision,
            length,
            RomOffset(raw.next_offset),
            checksum(whole) == 0,
            RomOffset(raw.manufacturer_offset),
            RomOffset(raw.product_offset),
            RomOffset(raw.bootstrap),
        )
