"""Roots of the shadow tables, and the ways from them down to a leaf's page.

A root is the shadow of one CR3 value: four links, to the directories of the
quarters of the address space. Roots are cached, by each CPU for itself; directories and
tables are shared between all roots of all CPUs by the guest frame that they shadow.
"""

from array import array

import cython

from vmm.core.cpu.cpustate import CpuState
from vmm.core.memory import GuestMemory
from vmm.core.mmu.curtain import Curtain
from vmm.core.mmu.follow import Follower
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadowpages import ShadowPages
from vmm.core.mmu.unsync import OutOfStep

# Bits of guest and shadow entries alike.
PRESENT = cython.declare(cython.ulonglong, 0x01)
WRITABLE = cython.declare(cython.ulonglong, 0x02)
USER = cython.declare(cython.ulonglong, 0x04)
ACCESSED = cython.declare(cython.ulonglong, 0x20)
DIRTY = cython.declare(cython.ulonglong, 0x40)
ACCESSED_DIRTY = cython.declare(cython.ulonglong, 0x60)
NO_EXECUTE = cython.declare(cython.ulonglong, 1 << 63)
WITHHELD = cython.declare(cython.ulonglong, 0x200)
# A leaf whose guest entry is not present (faultmask.py).
NOT_THERE = cython.declare(cython.ulonglong, 0x400)
FRAME_MASK = cython.declare(cython.ulonglong, 0xFFFFF000)
# Bits 12-51 of a guest's 64-bit entry.
GUEST_FRAME = cython.declare(cython.ulonglong, 0xFFFFFFFFFF000)

# Links are made ahead of need only while so many shadow pages are free.
AHEAD_RESERVE = cython.declare(cython.uint, 64)
ROOTS = cython.declare(cython.uint, 64)
NO_KEY = cython.declare(cython.uint, 0xFFFFFFFF)
NO_HOST = cython.declare(cython.uint, 0xFFFFFFFF)


@cython.cclass
class ShadowRoots:
    """The roots of one CPU, the `index`th of those that share `pages`."""

    def __init__(
        self,
        memory: GuestMemory,
        paging: GuestPaging,
        cpu: CpuState,
        pages: ShadowPages,
        index,
    ):
        self.memory = memory
        self.paging = paging
        self.cpu = cpu
        self.pages = pages
        self.follower = Follower(memory, pages)
        self.unsync = OutOfStep(memory, paging, pages, self.follower)
        self.curtain = Curtain(memory, cpu, pages)
        self.root_count = pages.roots_each
        self.first_root = index * pages.roots_each
        self.generation = pages.generation
        self.root_key = array("I", bytes(4 * ROOTS))
        self.root_used = bytearray(ROOTS)
        self.root_stamp = array("Q", bytes(8 * ROOTS))
        self.stamp = 0
        self.current = 0
        self.moved = self.strolled = False
        self.resets = 0

    def root_address(self):
        """The physical address of the root that the processor runs on."""
        if self.curtain.is_down:
            return int(self.curtain.value())
        return int(self.pages.pool_address) + 32 * int(self.current)

    def reset(self) -> cython.int:
        """Drop the whole shadow and start afresh."""
        self.resets += 1
        self.pages.clear()
        return self.start_afresh()

    def start_afresh(self) -> cython.int:
        """The shadow was dropped, by this CPU or another: find a root again."""
        i: cython.uint
        self.generation = self.pages.generation
        for i in range(ROOTS):
            self.root_used[i] = 0
        return self.load_root()

    def resume(self):
        """Run from now on, after other CPUs have."""
        self.pages.switch_to(self.cpu)
        if self.generation != self.pages.generation or self.runs_in_another_mode():
            self.start_afresh()

    def mode_changed(self) -> cython.int:
        """The guest's tables mean something else now: write protection, sizes, no-execute."""
        if len(self.pages.cpus) > 1 and not self.paging.enabled():
            # The tables are those of the other CPUs, and right for them.
            return 0
        return self.reset()

    def runs_in_another_mode(self) -> cython.bint:
        """Were the shadow tables made for a CPU that reads the guest's in another way?"""
        return self.paging.enabled() and self.pages.mode != self.paging.mode()

    def load_root(self) -> cython.int:
        """Run on the shadow of the guest's current CR3, from the cache if it is there."""
        self.unsync.bring_into_step()
        if self.runs_in_another_mode():
            self.pages.mode = self.paging.mode()
            if len(self.pages.cpus) > 1:
                return self.reset()
        key: cython.uint = NO_KEY
        if self.paging.enabled():
            key = self.paging.cr3 >> 5
        root: cython.uint
        victim: cython.uint = 0
        for root in range(self.root_count):
            if self.root_used[root] and self.root_key[root] == key:
                break
            if not self.root_used[root]:
                if self.root_used[victim]:
                    victim = root
            elif self.root_used[victim] and self.root_stamp[root] < self.root_stamp[victim]:
                victim = root
        else:
            root = victim
            self.empty_root(root)
            self.root_used[root] = 1
            self.root_key[root] = key
        self.stamp += 1
        self.root_stamp[root] = self.stamp
        self.current = self.first_root + root
        self.paging.load_pointers()
        self.check_pointers()
        if self.paging.enabled():
            self.link_directories()
        self.curtain.tell_up()
        address: cython.uint = self.pages.pool_address + 32 * self.current
        if address == self.cpu.root:
            # What no entry has withdrawn the TLB may keep.
            return self.pages.flush_if_stale()
        self.pages.settle()
        return self.cpu.load_root(address)

    def empty_root(self, root: cython.uint) -> cython.int:
        """Forget what a root linked to."""
        i: cython.uint
        for i in range(4):
            self.pages.drop_link(4 * (self.first_root + root) + i)
        return 0

    def check_pointers(self) -> cython.int:
        """Under PAE a cached root may have other directory pointers than it had."""
        if not self.paging.enabled() or not self.paging.pae():
            return 0
        i: cython.uint
        for i in range(4):
            link: cython.ulonglong = self.pages.entries[4 * self.current + i]
            pointer: cython.ulonglong = self.paging.pointer(i)
            if link & PRESENT and (
                not pointer & PRESENT
                or self.pages.frame_of[self.pages.page_index(link)] != self.host_of(pointer)
            ):
                self.pages.drop_link(4 * self.current + i)
        return 0

    def link_directories(self) -> cython.int:
        """Give a root its directories, as far as that makes no page traced."""
        quarter: cython.uint
        paging: GuestPaging = self.paging
        for quarter in range(4):
            if self.pages.entries[4 * self.current + quarter] & PRESENT:
                continue
            paging.pde_address = 0
            paging.walk(quarter << 30)
            frame: cython.uint = self.memory.host(paging.pde_address >> 12)
            if paging.pde_address >> 12 and frame != NO_HOST and self.pages.announced[frame]:
                if self.pages.free_count < AHEAD_RESERVE:
                    return 0
                self.directory(quarter)
        return 0

    # ---- ways

    def link(self, address: cython.uint, override: cython.bint) -> cython.uint:
        """Make the way to the leaf that the latest walk goes to; answers the leaf's page."""
        paging: GuestPaging = self.paging
        pages: ShadowPages = self.pages
        slot: cython.uint = 512 * self.directory(address >> 30) + ((address >> 21) & 511)
        if self.strolled:
            # The links made ahead in a new directory took other walks.
            self.strolled = False
            paging.walk(address)
        page: cython.uint
        page = pages.direct(paging.physical >> 21) if paging.large else self.table(address)
        link: cython.ulonglong = pages.link_to(page) | ACCESSED_DIRTY
        if paging.pde & USER and not (override and not paging.pde & WRITABLE):
            link |= USER
        if (paging.pde & WRITABLE and (not paging.large or paging.pde & DIRTY)) or override:
            link |= WRITABLE
        if paging.no_execute and paging.pde >> 63:
            link |= NO_EXECUTE
        link = pages.mark(paging.pde, link)
        if paging.large and link & USER:
            # The leaves of large pages are not marked one by one.
            link |= WITHHELD
        self.moved = pages.entries[slot] != link
        if self.moved:
            pages.store_link(slot, link)
        return page

    def directory(self, quarter: cython.uint) -> cython.uint:
        """The directory page of a quarter, linked to the current root.

        The latest walk has found the guest's directory in RAM.
        """
        location: cython.uint = 4 * self.current + quarter
        link: cython.ulonglong = self.pages.entries[location]
        if link & PRESENT:
            return self.pages.page_index(link)
        page: cython.uint
        if not self.paging.enabled():
            page = self.pages.identity_directory(quarter)
            self.pages.store_link(location, self.pages.link_to(page))
            return page
        frame: cython.uint = self.memory.host(self.paging.pde_address >> 12)
        part: cython.uint = 0 if self.paging.pae() else quarter
        is_new: cython.bint = not self.pages.directory_of[4 * frame + part]
        page = self.pages.directory(frame, part)
        self.pages.store_link(location, self.pages.link_to(page))
        if is_new:
            self.link_ahead(quarter, frame)
        return page

    def table(self, address: cython.uint) -> cython.uint:
        """The table page of the latest walk; a new one starts with what was accessed before."""
        half: cython.uint = 0 if self.paging.pae() else (address >> 21) & 1
        frame: cython.uint = self.host_of(self.paging.pde)
        page: cython.uint = self.pages.table_of[2 * frame + half]
        if page:
            return page
        page = self.pages.table(frame, half)
        i: cython.uint
        for i in range(512):
            entry: cython.ulonglong = self.follower.guest_entry(frame, half, i)
            if entry & PRESENT:
                self.follower.leaf_written(512 * page + i, entry)
            else:
                self.pages.entries[512 * page + i] = NOT_THERE
        return page

    def link_ahead(self, quarter: cython.uint, directory: cython.uint) -> cython.int:
        """Fill the shadow of a `directory` with the ways that the guest has used before.

        Only ways to what is shadowed already, or announced: a page must not come to be
        traced for the sake of an access that may never come.
        """
        paging: GuestPaging = self.paging
        pages: ShadowPages = self.pages
        slot: cython.uint
        address: cython.uint
        frame: cython.uint
        half: cython.uint = quarter >> 1
        for slot in range(512):
            # Most entries are not present, and a walk costs more than a look.
            if paging.pae():
                if not self.follower.guest_entry(directory, 0, slot) & PRESENT:
                    continue
            elif (
                not self.follower.guest_entry(directory, half, 256 * (quarter & 1) + (slot >> 1))
                & PRESENT
            ):
                continue
            address = (quarter << 30) | (slot << 21)
            paging.walk(address)
            if not paging.pde & PRESENT or not paging.pde & ACCESSED:
                continue
            if paging.large:
                if pages.direct_of[paging.physical >> 21]:
                    self.link(address, False)
                continue
            frame = self.memory.host(paging.pte_address >> 12)
            if frame != NO_HOST and (
                pages.announced[frame] or pages.table_of[2 * frame] or pages.table_of[2 * frame + 1]
            ):
                if pages.free_count < AHEAD_RESERVE:
                    break
                self.link(address, False)
        self.strolled = True
        return 0

    def host_of(self, entry: cython.ulonglong) -> cython.uint:
        """The host's number of the frame that a guest's entry names; NO_HOST where no memory is."""
        if entry & GUEST_FRAME > FRAME_MASK:
            return NO_HOST
        return self.memory.host(cython.cast(cython.uint, (entry & GUEST_FRAME) >> 12))
