"""What PC firmware leaves in CMOS memory (IBM PC AT; Ralf Brown's CMOS list)."""

import struct

__all__ = ["CENTURY", "CMOS_SIZE", "firmware_cmos"]

CMOS_SIZE = 128
CENTURY = 0x32
"""Where firmware keeps the century, in BCD."""

_EQUIPMENT = 0x14
_COPROCESSOR = 0x02
_BASE_MEMORY = 0x15
_EXTENDED_MEMORY = 0x17
_CHECKSUM = 0x2E
_CHECKED = slice(0x10, 0x2E)
_EXTENDED_FOUND = 0x30
_ABOVE_16_MIB = 0x34

_BASE_KIB = 640
_MIB = 1 << 20


def firmware_cmos(memory: int, century: int) -> bytearray:
    """CMOS memory of a machine with `memory` bytes of RAM, no floppy and no disk types.

    The clock's own registers are left 0.
    """
    cmos = bytearray(CMOS_SIZE)
    extended = min(max(0, memory - _MIB) // 1024, 0xFFFF)
    above = min(max(0, memory - 16 * _MIB) // 65536, 0xFFFF)
    cmos[_EQUIPMENT] = _COPROCESSOR
    struct.pack_into("<H", cmos, _BASE_MEMORY, _BASE_KIB)
    struct.pack_into("<H", cmos, _EXTENDED_MEMORY, extended)
    struct.pack_into("<H", cmos, _EXTENDED_FOUND, extended)
    struct.pack_into("<H", cmos, _ABOVE_16_MIB, above)
    struct.pack_into(">H", cmos, _CHECKSUM, sum(cmos[_CHECKED]))
    cmos[CENTURY] = century // 10 << 4 | century % 10
    return cmos
