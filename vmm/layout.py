"""Where a PC has its memory: the slots that a machine starts with."""

from vmm.core.slots import RAM_BACKING, MemorySlot

__all__ = ["VGA_HOLE", "pc_slots"]

VGA_HOLE = (0xA0000, 0xC0000)
"""No RAM from the first address to the second."""


def pc_slots(memory: int) -> tuple[MemorySlot, ...]:
    """`memory` bytes of RAM from address 0 on, apart from what the hole hides."""
    start, end = VGA_HOLE
    return (
        MemorySlot(0, start),
        MemorySlot(end, memory - end, RAM_BACKING, end),
    )
