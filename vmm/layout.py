"""Where a PC has its memory: the slots that a machine starts with, and the bytes behind them."""

import mmap
from collections.abc import Sequence

from vmi.address import GuestPhysical
from vmm.core.errors import BadDescription
from vmm.core.memory import GuestMemory
from vmm.core.slots import RAM_BACKING, MemorySlot, SlotList, lay_out
from vmm.ram import guest_ram

__all__ = ["GDT", "MOST_MEMORY", "VGA_HOLE", "lay_out_memory", "pc_slots"]

MOST_MEMORY = 1 << 30
"""Bytes that a machine can have, all backings together."""

VGA_HOLE = (0xA0000, 0xC0000)
"""No RAM from the first address to the second."""

GDT = GuestPhysical(0x1000)
"""Where the first descriptors lie."""


def pc_slots(memory: int) -> tuple[MemorySlot, ...]:
    """`memory` bytes of RAM from address 0 on, apart from what the hole hides."""
    start, end = VGA_HOLE
    return (
        MemorySlot(0, start),
        MemorySlot(end, memory - end, RAM_BACKING, end),
    )


def lay_out_memory(
    memory: int, backings: Sequence[tuple[str, int]]
) -> tuple[mmap.mmap, GuestMemory]:
    """All backings in one buffer, the RAM first, and what a PC shows of that one.

    `backings` are names and sizes in bytes. Raises `BadDescription` for what cannot be.
    """
    listed = lay_out([(RAM_BACKING, memory), *backings])
    size = sum(backing.size for backing in listed)
    if size > MOST_MEMORY:
        raise BadDescription(f"memory and backings of {size} bytes: expected at most {MOST_MEMORY}")
    ram = guest_ram(size)
    return ram, GuestMemory(ram, SlotList(pc_slots(memory), listed))
