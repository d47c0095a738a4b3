"""Carry what the guest has stored in its tables over to the shadow of them."""

import cython

from vmm.core.memory import GuestMemory
from vmm.core.mmu.shadowpages import ShadowPages
from vmm.core.saved import Fields

PRESENT = cython.declare(cython.ulonglong, 0x01)
WRITABLE = cython.declare(cython.ulonglong, 0x02)
USER = cython.declare(cython.ulonglong, 0x04)
ACCESSED = cython.declare(cython.ulonglong, 0x20)
DIRTY = cython.declare(cython.ulonglong, 0x40)
NO_EXECUTE = cython.declare(cython.ulonglong, 1 << 63)
FRAME_MASK = cython.declare(cython.ulonglong, 0xFFFFF000)
# A leaf whose guest entry is not present (faultmask.py).
NOT_THERE = cython.declare(cython.ulonglong, 0x400)
# The guest allows fetches through a present one.
FETCHABLE = cython.declare(cython.ulonglong, 0x400)
LENT = cython.declare(cython.ulonglong, 0x800)
# A bit of what GuestMemory.entry() answers.
RAM = cython.declare(cython.uint, 1)
NO_HOST = cython.declare(cython.uint, 0xFFFFFFFF)
# In `ShadowPages.mode`: the guest's EFER.NXE.
NO_EXECUTE_MODE = cython.declare(cython.uint, 1)
# Bits 12-51 of a guest's 64-bit entry.
GUEST_FRAME = cython.declare(cython.ulonglong, 0xFFFFFFFFFF000)


@cython.final
@cython.cclass
class Follower:
    """Keeps the shadow pages in step with the guest's tables, as the CPUs read those that page.

    The one that stores may not, and have other ideas of how long an entry is.
    """

    SAVED = Fields(
        wiring="memory pages",
    )

    def __init__(self, memory: GuestMemory, pages: ShadowPages):
        self.memory = memory
        self.pages = pages

    def copy_of(self, entry: cython.uint) -> cython.uint:
        """Where the shadow's copy of the guest's leaf entry at `entry` is; 0 if it has none."""
        frame: cython.uint = self.memory.host(entry >> 12)
        return 0 if frame == NO_HOST else self.copy_in(frame, entry)

    def copy_in(self, frame: cython.uint, entry: cython.uint) -> cython.uint:
        """The same for a table whose frame of the host's is known."""
        index: cython.uint
        half: cython.uint = 0
        if self.pages.wide():
            index = (entry & 0xFFF) >> 3
        else:
            index = (entry & 0xFFF) >> 2
            half = index >> 9
        page: cython.uint = self.pages.table_of[2 * frame + half]
        return 512 * page + (index & 511) if page else 0

    def guest_entry(
        self, frame: cython.uint, half: cython.uint, index: cython.uint
    ) -> cython.ulonglong:
        """An entry of the guest's table in a frame of the host, by its place in the shadow."""
        if self.pages.wide():
            return self.memory.host64((frame << 12) + 8 * index)
        return self.memory.host32((frame << 12) + 4 * (512 * half + index))

    def entry_written(self, address: cython.uint) -> cython.int:
        """Follow a store to the guest page-table entry at this physical address."""
        frame: cython.uint = self.memory.host(address >> 12)
        if frame == NO_HOST:
            return 0
        pages: ShadowPages = self.pages
        page: cython.uint
        index: cython.uint
        location: cython.uint = self.copy_in(frame, address)
        if self.pages.wide():
            if location:
                self.leaf_written(location, self.memory.read64(address))
            page = pages.directory_of[4 * frame]
            if page:
                pages.drop_link(512 * page + ((address & 0xFFF) >> 3))
            return 0
        if location:
            self.leaf_written(location, self.memory.read32(address))
        index = (address & 0xFFF) >> 2
        page = pages.directory_of[4 * frame + (index >> 8)]
        if page:
            pages.drop_link(512 * page + 2 * (index & 255))
            pages.drop_link(512 * page + 2 * (index & 255) + 1)
        return 0

    def leaf_written(self, location: cython.uint, entry: cython.ulonglong) -> cython.int:
        """Carry a guest's leaf entry to its place in the shadow."""
        pages: ShadowPages = self.pages
        old: cython.ulonglong = pages.entries[location]
        guest: cython.ulonglong = (entry & GUEST_FRAME) >> 12
        known: cython.uint = 0
        # Only what was accessed before is worth having ready.
        if entry & PRESENT and entry & ACCESSED and guest < self.memory.frame_count:
            known = self.memory.entry(cython.cast(cython.uint, guest))
        if not known & RAM:
            pages.drop_leaf(location)
            pages.entries[location] = 0 if entry & PRESENT else NOT_THERE
            return 0
        same: cython.bint = (old & PRESENT) != 0 and (old & FRAME_MASK) >> 12 == known >> 12
        forbidden: cython.bint = self.pages.mode & NO_EXECUTE_MODE and entry >> 63
        new: cython.ulonglong = pages.leaf(
            cython.cast(cython.uint, guest),
            known,
            (entry & USER) != 0,
            (entry & WRITABLE) != 0 and (entry & DIRTY) != 0,
            same and not old & (NO_EXECUTE | LENT) and not forbidden,
        )
        if not forbidden:
            new |= FETCHABLE
        return pages.store_leaf(location, pages.mark(entry, new))
