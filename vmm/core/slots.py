"""The list of memory slots: which guest-physical ranges lead to which bytes of the host.

The shape is that of KVM_SET_USER_MEMORY_REGION (Linux, Documentation/virt/kvm/api.rst,
section 4.35), with the list replaced as a whole. All memory of a machine is one buffer; a
*backing* is a named range of it, and a slot shows a part of a backing to the guest. Two
slots may show the same bytes (an alias).

A list is checked when it is made, and never changes: whoever has one has all of it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vmi.address import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from vmm.core.errors import BadSlots

__all__ = [
    "RAM_BACKING",
    "Backing",
    "MemorySlot",
    "SlotList",
    "changed_frames",
    "lay_out",
    "whole",
]

RAM_BACKING = "ram"
"""The backing that every machine has: as many bytes as its memory."""

_END = 1 << 32


@dataclass(frozen=True, slots=True)
class Backing:
    """`size` bytes of the host's buffer from `start` on: whole pages, both in bytes."""

    name: str
    start: int
    size: int


def lay_out(sizes: Iterable[tuple[str, int]]) -> tuple[Backing, ...]:
    """Backings one behind the other, from names and sizes in bytes.

    Raises `BadSlots` for a name that comes twice, and for sizes that are not whole pages.
    """
    found: dict[str, Backing] = {}
    start = 0
    for name, size in sizes:
        if size <= 0 or size & PAGE_MASK:
            raise BadSlots(f"backing {name!r} of {size} bytes: expected whole pages")
        if name in found:
            raise BadSlots(f"backing {name!r} is named twice")
        found[name] = Backing(name, start, size)
        start += size
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class MemorySlot:
    """`size` bytes at guest-physical `address`: those of a backing from `offset` on.

    All three are whole pages, in bytes. Stores to a `read_only` slot are swallowed, as a ROM
    does, each with an exit. With `logging` the monitor keeps which of its pages were written.
    """

    address: int
    size: int
    backing: str = RAM_BACKING
    offset: int = 0
    read_only: bool = False
    logging: bool = False

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + self.size

    def __str__(self) -> str:
        return f"{self.address:#x}-{self.end - 1:#x} ({self.backing}+{self.offset:#x})"


class SlotList:
    """Slots that may be together, by address.

    Raises `BadSlots`, naming the slot by its place in the list and its range - both of
    them where two overlap - for what is not whole pages, empty, beyond 4 GiB or its backing.
    """

    def __init__(self, slots: Iterable[MemorySlot], backings: Iterable[Backing]) -> None:
        given = tuple(slots)
        self.backings = {backing.name: backing for backing in backings}
        for number, slot in enumerate(given):
            self._check(number, slot)
        order = sorted(range(len(given)), key=lambda number: given[number].address)
        for low, high in pairwise(order):
            if given[high].address < given[low].end:
                raise BadSlots(f"slot {high}, {given[high]}, overlaps slot {low}, {given[low]}")
        self.slots = tuple(given[number] for number in order)
        self._starts = [slot.address for slot in self.slots]

    def _check(self, number: int, slot: MemorySlot) -> None:
        where = f"slot {number}, {slot}"
        for what, value in (
            ("address", slot.address), ("size", slot.size), ("offset", slot.offset),
        ):  # fmt: skip
            if value & PAGE_MASK or value < 0:
                raise BadSlots(f"{where}: {what} {value:#x}: expected a multiple of {PAGE_SIZE:#x}")
        if not slot.size:
            raise BadSlots(f"{where}: size 0: expected a page or more")
        if slot.end > _END:
            raise BadSlots(f"{where}: ends at {slot.end:#x}: expected at most {_END:#x}")
        backing = self.backings.get(slot.backing)
        if backing is None:
            known = ", ".join(sorted(self.backings))
            raise BadSlots(f"{where}: backing {slot.backing!r}: expected one of {known}")
        if slot.offset + slot.size > backing.size:
            raise BadSlots(
                f"{where}: reaches byte {slot.offset + slot.size:#x} of a backing of "
                f"{backing.size:#x}"
            )

    def __len__(self) -> int:
        return len(self.slots)

    def __iter__(self) -> Iterator[MemorySlot]:
        return iter(self.slots)

    def find(self, address: int) -> MemorySlot | None:
        """The slot that an address lies in."""
        at = bisect_right(self._starts, address) - 1
        if at >= 0 and address < self.slots[at].end:
            return self.slots[at]
        return None

    def host(self, slot: MemorySlot) -> int:
        """Where a slot's bytes begin in the host's buffer."""
        return self.backings[slot.backing].start + slot.offset

    def host_of(self, address: int) -> int | None:
        """Where an address leads in the host's buffer; none where no slot is."""
        slot = self.find(address)
        return None if slot is None else self.host(slot) + address - slot.address


def changed_frames(old: SlotList, new: SlotList) -> list[range]:
    """The host page frames that some guest-physical address has come to name, or ceased to."""
    edges = sorted({edge for slot in (*old, *new) for edge in (slot.address, slot.end)})
    found: list[range] = []
    for start, end in pairwise(edges):
        before, after = old.host_of(start), new.host_of(start)
        if before != after:
            count = (end - start) >> PAGE_SHIFT
            found.extend(
                range(place >> PAGE_SHIFT, (place >> PAGE_SHIFT) + count)
                for place in (before, after)
                if place is not None
            )
    return found


def whole(size: int) -> tuple[Sequence[MemorySlot], Sequence[Backing]]:
    """One slot at address 0 that shows all of a buffer."""
    return (MemorySlot(0, size),), (Backing(RAM_BACKING, 0, size),)
