"""What a drive says about itself: the IDENTIFY DEVICE data (ATA/ATAPI-6, section 8.15.8)."""

import struct
from dataclasses import dataclass

__all__ = ["MULTIPLE_LIMIT", "Geometry", "identify_data"]

MULTIPLE_LIMIT = 16
"""Sectors per interrupt that SET MULTIPLE MODE may choose."""

_MODEL = "vmirom disk"
_FIRMWARE = "1.0"
_MOST_CYLINDERS = 16383
_MOST_28_BIT = (1 << 28) - 1

_FIXED = 0x0040
_LBA, _IORDY = 0x0200, 0x0800
_FIELDS_VALID = 0x0002
_ADVANCED_PIO = 0x0003
_PIO_CYCLE_NS = 120
_ATA_1_TO_6 = 0x007E
_COMMANDS = 0x4000
"""NOP. Neither security, SMART, removable media nor a write cache."""
_VALID = 0x4000
_FLUSH, _FLUSH_48, _ADDRESSES_48 = 0x1000, 0x2000, 0x0400
_RESET_RESULT = 0x6001
"""Hardware reset result: device 0 passed its diagnostics."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How cylinder, head and sector numbers map to sectors."""

    cylinders: int
    heads: int
    sectors: int

    @classmethod
    def of(cls, sectors: int) -> "Geometry":
        """The geometry that a drive of so many sectors starts with."""
        return cls(max(1, min(sectors // (16 * 63), _MOST_CYLINDERS)), 16, 63)

    @property
    def capacity(self) -> int:
        """Sectors that can be reached."""
        return self.cylinders * self.heads * self.sectors


def identify_data(sectors: int, default: Geometry, current: Geometry, multiple: int) -> bytes:
    """256 words. `multiple` is the chosen number of sectors per interrupt, 0 for none."""
    words = [0] * 256
    words[0] = _FIXED
    words[1], words[3], words[6] = default.cylinders, default.heads, default.sectors
    words[10:20] = _text("1", 10)
    words[23:27] = _text(_FIRMWARE, 4)
    words[27:47] = _text(_MODEL, 20)
    words[47] = 0x8000 | MULTIPLE_LIMIT
    words[49] = _LBA | _IORDY
    words[50] = _VALID
    words[53] = 0x0001 | _FIELDS_VALID
    words[54], words[55], words[56] = current.cylinders, current.heads, current.sectors
    words[57], words[58] = _halves(current.capacity)
    words[59] = 0x0100 | multiple if multiple else 0
    words[60], words[61] = _halves(min(sectors, _MOST_28_BIT))
    words[64] = _ADVANCED_PIO
    words[67] = words[68] = _PIO_CYCLE_NS
    words[80] = _ATA_1_TO_6
    words[82] = words[85] = _COMMANDS
    words[83] = words[86] = _VALID | _FLUSH | _FLUSH_48 | _ADDRESSES_48
    words[86] &= ~_VALID
    words[84] = words[87] = _VALID
    words[93] = _RESET_RESULT
    for i in range(4):
        words[100 + i] = sectors >> (16 * i) & 0xFFFF
    return struct.pack("<256H", *words)


def _halves(value: int) -> tuple[int, int]:
    return value & 0xFFFF, value >> 16


def _text(text: str, words: int) -> list[int]:
    """Characters in pairs, the first one in the upper byte."""
    padded = text.encode().ljust(2 * words)
    return [int(word) for word in struct.unpack(f">{words}H", padded)]
