"""Guest-physical memory as a list of slots, replaced as a whole.

A slot is a range of guest-physical addresses and the bytes behind it. Two slots may
have the same bytes (an alias). What lies in no slot exits on every access, and a
read-only slot exits on stores, which is how a ROM is protected and a page table traced. Of a slot
that logs, the kernel keeps which pages were written.
"""

import ctypes
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from mmap import mmap

from vmi.address import PAGE_SHIFT, PAGE_SIZE
from vmm.core.errors import BadDescription
from vmm.core.memory import GuestMemory
from vmm.engine.kvm.device import KvmRefused, KvmVm
from vmm.engine.kvm.uapi import Capability, DirtyBitmap, Ioctl, MemoryRegion, SlotFlag

__all__ = ["Slot", "SlotTable", "slots_of"]

_TRACED, _LOGGED = 1, 2


@dataclass(frozen=True, slots=True)
class Slot:
    """`size` bytes at a guest-physical address: those of `memory` from `offset` on.

    All three numbers are whole pages, in bytes. The memory must outlive the slot. Its number,
    and with it what the kernel has logged, ends with the list that it is in.
    """

    address: int
    size: int
    memory: mmap
    offset: int = 0
    readonly: bool = False
    logging: bool = False

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + self.size


class SlotTable:
    """The slots of one virtual machine; none may be running while they change."""

    def __init__(self, vm: KvmVm) -> None:
        self._vm = vm
        self._numbers: dict[Slot, int] = {}
        self._most = vm.capability(Capability.NR_MEMSLOTS)
        self._readonly = bool(vm.capability(Capability.READONLY_MEM))

    @property
    def slots(self) -> list[Slot]:
        """What there is, by address."""
        return sorted(self._numbers, key=lambda slot: slot.address)

    def replace(self, slots: Sequence[Slot]) -> None:
        """Have exactly these slots; those that stay as they are keep their translations.

        Raises `BadDescription`, with nothing changed, for slots that overlap or do not fit
        their memory, and where the host lacks what they need. If the kernel refuses one,
        the old ones are put back.
        """
        self._check(slots)
        before = list(self._numbers)
        try:
            self._change(slots)
        except KvmRefused:
            self._change(before)
            raise

    def written(self) -> list[int]:
        """Where, in bytes of its memory, each page lies that was written since this was asked last.

        Of the slots that log; the kernel clears what it tells.
        """
        found = []
        for slot, number in self._numbers.items():
            if slot.logging:
                # The kernel writes whole words of 64 bits.
                words = (ctypes.c_uint64 * -(-(slot.size >> PAGE_SHIFT) // 64))()
                about = DirtyBitmap(number, 0, ctypes.addressof(words))
                self._vm.ioctl_buffer(Ioctl.GET_DIRTY_LOG, bytearray(about))
                bits = int.from_bytes(bytes(words), "little")
                found += [
                    slot.offset + (page << PAGE_SHIFT)
                    for page in range(bits.bit_length())
                    if bits >> page & 1
                ]
        return found

    def renew(self, address: int) -> None:
        """Drop and make again the slot that holds an address.

        The kernel then forgets all that it has derived from the slot: where it shadows page
        tables itself, it does not see what we store into one.
        """
        for slot, number in self._numbers.items():
            if slot.address <= address < slot.end:
                self._tell(number, slot, 0)
                self._tell(number, slot, slot.size)

    def _check(self, slots: Sequence[Slot]) -> None:
        if len(slots) > self._most:
            raise BadDescription(f"{len(slots)} memory slots: this host has {self._most}")
        ordered = sorted(slots, key=lambda slot: slot.address)
        for slot in ordered:
            if (slot.address | slot.size | slot.offset) % PAGE_SIZE or slot.size <= 0:
                raise BadDescription(
                    f"slot at {slot.address:#x} of {slot.size:#x} bytes from {slot.offset:#x}: "
                    "expected whole pages"
                )
            if slot.offset < 0 or slot.offset + slot.size > len(slot.memory):
                raise BadDescription(
                    f"slot at {slot.address:#x}: {slot.offset:#x}-{slot.offset + slot.size:#x} "
                    f"is not within its memory of {len(slot.memory):#x} bytes"
                )
            if slot.readonly and not self._readonly:
                raise BadDescription(
                    f"slot at {slot.address:#x}: this host has no read-only memory slots"
                )
        for low, high in itertools.pairwise(ordered):
            if high.address < low.end:
                raise BadDescription(
                    f"slot at {high.address:#x} overlaps the one at {low.address:#x}-{low.end:#x}"
                )

    def _change(self, slots: Iterable[Slot]) -> None:
        wanted = set(slots)
        for slot in [slot for slot in self._numbers if slot not in wanted]:
            self._tell(self._numbers[slot], slot, 0)
            del self._numbers[slot]
        free = (number for number in itertools.count() if number not in self._numbers.values())
        for slot in slots:
            if slot not in self._numbers:
                number = next(free)
                self._tell(number, slot, slot.size)
                self._numbers[slot] = number

    def _tell(self, number: int, slot: Slot, size: int) -> None:
        region = MemoryRegion(
            number,
            (SlotFlag.READONLY if slot.readonly else 0)
            | (SlotFlag.LOG_DIRTY_PAGES if slot.logging else 0),
            slot.address,
            size,
            ctypes.addressof(ctypes.c_char.from_buffer(slot.memory)) + slot.offset,
        )
        self._vm.ioctl_buffer(Ioctl.SET_USER_MEMORY_REGION, bytearray(region))


def slots_of(memory: GuestMemory, buffer: mmap, readonly: Iterable[int] = ()) -> list[Slot]:
    """The fewest slots for what the guest's memory shows of its buffer.

    One logs if any slot of the guest's logs the same bytes. Frames of the guest named in
    `readonly` are write-protected as well.
    """
    traced, logged = set(readonly), memory.log.frames()
    slots = []
    for first, count, host, protected in memory.runs():
        kinds = bytes(
            (first + i in traced) * _TRACED | (host + i in logged) * _LOGGED for i in range(count)
        )
        at = 0
        for kind, run in itertools.groupby(kinds):
            length = sum(1 for _ in run)
            slots.append(
                Slot(
                    (first + at) << PAGE_SHIFT,
                    length << PAGE_SHIFT,
                    buffer,
                    (host + at) << PAGE_SHIFT,
                    bool(protected or kind & _TRACED),
                    bool(kind & _LOGGED),
                )
            )
            at += length
    return slots
