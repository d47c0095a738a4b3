"""Where things lie in the machine that runs a ROM, for each place the ROM can have."""

from dataclasses import dataclass
from functools import cache

from vmi.address import GuestPhysical, GuestVirtual

__all__ = [
    "ARENA_SIZE",
    "KERNEL_CODE",
    "KERNEL_DATA",
    "PLACEMENTS",
    "POISON_DATA",
    "POISON_EXTRA",
    "SEGMENT_BASES",
    "STACK_SIZE",
    "USER_CODE",
    "USER_DATA",
    "Placement",
    "descriptors",
]

ARENA_SIZE = 0x4000
STACK_SIZE = 0x4000
_ARENA = 0x1000000
_STACK = 0x1100000
_TABLES = 0x1200000
_NATIVE = 0x1300000
_RETURN = 0x1400000


@dataclass(frozen=True, slots=True)
class Placement:
    """A ROM's physical address, and the start of the guest's linear mapping of all memory."""

    physical: GuestPhysical
    mapping: GuestVirtual

    @property
    def load(self) -> GuestVirtual:
        """Where the image runs."""
        return GuestVirtual(self.mapping + self.physical)

    @property
    def arena(self) -> GuestVirtual:
        """Memory that arguments point to."""
        return GuestVirtual(self.mapping + _ARENA)

    @property
    def stack(self) -> GuestVirtual:
        """The lowest address of the kernel stack."""
        return GuestVirtual(self.mapping + _STACK)

    @property
    def tables(self) -> GuestVirtual:
        """The GDT."""
        return GuestVirtual(self.mapping + _TABLES)

    @property
    def native(self) -> GuestVirtual:
        """The native instructions that a call is compared with."""
        return GuestVirtual(self.mapping + _NATIVE)

    @property
    def returns(self) -> GuestVirtual:
        """The caller's next instruction."""
        return GuestVirtual(self.mapping + _RETURN)


# Firmware places images on 2 KiB boundaries from 0xC0000 on: one on 64 KiB, one on 4 KiB, one on
# 2 KiB only.  Linux maps memory at 3 GiB, or at 1 GiB when built so.
PLACEMENTS = tuple(
    Placement(GuestPhysical(physical), GuestVirtual(mapping))
    for mapping in (0xC0000000, 0x40000000)
    for physical in (0xC0000, 0xC8800, 0xDB000)
)

# Selectors as Linux has them, so that SYSEXIT finds its four in a row.
KERNEL_CODE = 0x60
KERNEL_DATA = 0x68
USER_CODE = 0x73
USER_DATA = 0x7B
POISON_DATA = 0x83
POISON_EXTRA = 0x8B

SEGMENT_BASES = {KERNEL_DATA: 0, USER_DATA: 0, POISON_DATA: 0x25000000, POISON_EXTRA: 0x1B000000}
"""The poisoned data segments start where no address that a call could use is mapped. They are
user segments: IRET to ring 3 would take any other away, and SYSEXIT would not."""

_CODE, _DATA, _USER = 0x9B, 0x93, 0x60


def _descriptor(base: int, access: int) -> bytes:
    """A 32-bit segment of 4 GiB, accessed already so that loading it writes nothing."""
    value = 0x00CF_0000_0000_FFFF | access << 40
    value |= (base & 0xFFFFFF) << 16 | (base >> 24) << 56
    return value.to_bytes(8, "little")


@cache
def descriptors() -> bytes:
    """The GDT."""
    entries = {
        KERNEL_CODE: _descriptor(0, _CODE),
        KERNEL_DATA: _descriptor(0, _DATA),
        USER_CODE: _descriptor(0, _CODE | _USER),
        USER_DATA: _descriptor(0, _DATA | _USER),
        POISON_DATA: _descriptor(SEGMENT_BASES[POISON_DATA], _DATA | _USER),
        POISON_EXTRA: _descriptor(SEGMENT_BASES[POISON_EXTRA], _DATA | _USER),
    }
    table = bytearray(0x100)
    for selector, entry in entries.items():
        table[selector & ~7 : (selector & ~7) + 8] = entry
    return bytes(table)
