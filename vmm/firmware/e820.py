"""The memory map that firmware hands to a kernel (ACPI 3.0, section 14: INT 15h, E820h)."""

import struct
from dataclasses import dataclass
from enum import IntEnum

from vmi.address import GuestPhysical
from vmm.core.errors import BadDescription

__all__ = [
    "EBDA_START",
    "E820Entry",
    "E820Kind",
    "memory_map",
    "pack_entries",
]

EBDA_START = GuestPhysical(0x9FC00)
"""Where usable low memory ends and the extended BIOS data area begins."""
_LOW_END = 0xA0000
_BIOS_START = 0xF0000
_ONE_MIB = 0x100000


class E820Kind(IntEnum):
    """What a range may be used for."""

    RAM = 1
    RESERVED = 2


@dataclass(frozen=True, slots=True)
class E820Entry:
    """`size` bytes from `base` on."""

    base: GuestPhysical
    size: int
    kind: E820Kind


def memory_map(memory: int) -> tuple[E820Entry, ...]:
    """The map of a PC with `memory` bytes of RAM, more than 1 MiB.

    Raises `BadDescription` when there is less.
    """
    if memory <= _ONE_MIB:
        raise BadDescription(f"memory of {memory} bytes: expected more than {_ONE_MIB}")
    return (
        E820Entry(GuestPhysical(0), EBDA_START, E820Kind.RAM),
        E820Entry(EBDA_START, _LOW_END - EBDA_START, E820Kind.RESERVED),
        E820Entry(GuestPhysical(_BIOS_START), _ONE_MIB - _BIOS_START, E820Kind.RESERVED),
        E820Entry(GuestPhysical(_ONE_MIB), memory - _ONE_MIB, E820Kind.RAM),
    )


def pack_entries(entries: tuple[E820Entry, ...]) -> bytes:
    """The entries as INT 15h returns them, 20 bytes each."""
    return b"".join(struct.pack("<QQI", entry.base, entry.size, entry.kind) for entry in entries)
