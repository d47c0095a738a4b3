"""The shadow MMU: the tables the processor really runs on.

The processor never sees the guest's page tables. It runs on PAE tables with
no-execute, kept in a pool of pages outside guest memory, which this class fills
from the guest's tables one fault at a time. A guest page that serves as a page
table is *traced*: mapped read-only in the shadow, so that each store to it exits
and the shadow can follow - unless the guest *announced* the page through the ROM
and promised to tell of every store. If it fails to tell, the shadow goes stale
and the guest breaks. That is the contract, and nothing here knows better.

A page's number is the guest's in the guest's tables and the host's in the shadow and
everything that is kept by page (`GuestMemory.host` leads from the one to the other).
"""

from array import array

import cython

from vmm.core.cpu.cpustate import CpuState
from vmm.core.memory import GuestMemory
from vmm.core.mmu.curtain import Curtain
from vmm.core.mmu.devicememory import DeviceMemory
from vmm.core.mmu.faultmask import FaultMask
from vmm.core.mmu.follow import Follower
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadowpages import ShadowPages
from vmm.core.mmu.unsync import OutOfStep
from vmm.core.saved import ARRAY, FLAG, PART, U32, U64, BadState, Fields

# Bits of guest and shadow entries alike.
PRESENT = cython.declare(cython.ulonglong, 0x01)
WRITABLE = cython.declare(cython.ulonglong, 0x02)
USER = cython.declare(cython.ulonglong, 0x04)
ACCESSED = cython.declare(cython.ulonglong, 0x20)
DIRTY = cython.declare(cython.ulonglong, 0x40)
LARGE = cython.declare(cython.ulonglong, 0x80)
ACCESSED_DIRTY = cython.declare(cython.ulonglong, 0x60)
NO_EXECUTE = cython.declare(cython.ulonglong, 1 << 63)
WITHHELD = cython.declare(cython.ulonglong, 0x200)
# A leaf whose guest entry is not present (faultmask.py).
NOT_THERE = cython.declare(cython.ulonglong, 0x400)
LENT = cython.declare(cython.ulonglong, 0x800)
FRAME_MASK = cython.declare(cython.ulonglong, 0xFFFFF000)
# Bits 12-51 of a guest's 64-bit entry.
GUEST_FRAME = cython.declare(cython.ulonglong, 0xFFFFFFFFFF000)

# Bits of what GuestMemory.entry() answers.
RAM = cython.declare(cython.uint, 1)
PROTECTED = cython.declare(cython.uint, 2)

ERROR_WRITE = cython.declare(cython.uint, 2)
ERROR_USER = cython.declare(cython.uint, 4)
ERROR_FETCH = cython.declare(cython.uint, 16)

# What resolve() found.
FILLED = cython.declare(cython.int, 0)
MADE_EXECUTABLE = cython.declare(cython.int, 1)
GUEST_FAULT = cython.declare(cython.int, 2)
TABLE_WRITE = cython.declare(cython.int, 3)
ROM_WRITE = cython.declare(cython.int, 4)
CODE_WRITE = cython.declare(cython.int, 5)
DEVICE_ACCESS = cython.declare(cython.int, 6)
LOGGED = cython.declare(cython.int, 7)

# Links are made ahead of need only while so many shadow pages are free.
AHEAD_RESERVE = cython.declare(cython.uint, 64)
ROOTS = cython.declare(cython.uint, 64)
NO_KEY = cython.declare(cython.uint, 0xFFFFFFFF)
NO_HOST = cython.declare(cython.uint, 0xFFFFFFFF)


@cython.final
@cython.cclass
class ShadowMmu:
    """Shadow tables for one CPU, in a pool as `ShadowPages` describes it.

    A root is the shadow of one CR3 value: four links, to the directories of the
    quarters of the address space. Roots are cached, by each CPU for itself (`index`
    is its number); directories and tables are shared between all roots of all CPUs by
    the guest frame that they shadow.
    """

    SAVED = Fields(
        {
            PART: "curtain",
            ARRAY: "root_key root_used root_stamp",
            U32: "current unchanged_at guest_error target",
            U64: "generation stamp resets",
            FLAG: "moved strolled",
        },
        wiring="memory paging cpu pages follower unsync fault_mask first_root root_count devices",
    )

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
        self.fault_mask = FaultMask(paging, pages, self.curtain)
        self.root_count = pages.roots_each
        self.first_root = index * pages.roots_each
        self.generation = pages.generation
        self.root_key = array("I", bytes(4 * ROOTS))
        self.root_used = bytearray(ROOTS)
        self.root_stamp = array("Q", bytes(8 * ROOTS))
        self.stamp = 0
        self.current = 0
        self.unchanged_at = 0
        self.guest_error = self.target = 0
        self.moved = self.strolled = False
        self.resets = 0
        self.devices = DeviceMemory(memory)

    def _check_saved(self):
        """One of this CPU's own roots, or the first of all where it has had none."""
        own = range(int(self.first_root), int(self.first_root) + int(self.root_count))
        if self.current and self.current not in own:
            raise BadState(f"root {self.current}: expected from {self.first_root} on")

    def root_address(self):
        """The physical address of the root that the processor runs on."""
        if self.curtain.is_down:
            return int(self.curtain.value())
        return int(self.pages.pool_address) + 32 * int(self.current)

    # ---- roots

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

    def flush_if_stale(self) -> cython.int:
        """Flush the TLB if an entry lost a right since the last flush."""
        return self.pages.flush_if_stale()

    # ---- which guest pages are tables

    def is_traced(self, frame: cython.uint) -> cython.bint:
        """Must stores to this frame exit?"""
        return self.pages.is_traced(frame)

    def is_in_use(self, frame: cython.uint) -> cython.bint:
        """Does the latest walk go through this frame? Then its shadow would be back at once."""
        paging: GuestPaging = self.paging
        if not paging.enabled():
            return False
        return frame == self.memory.host(paging.pde_address >> 12) or (
            not paging.large and frame == self.memory.host(paging.pte_address >> 12)
        )

    def host_of(self, entry: cython.ulonglong) -> cython.uint:
        """The host's number of the frame that a guest's entry names; NO_HOST where no memory is."""
        if entry & GUEST_FRAME > FRAME_MASK:
            return NO_HOST
        return self.memory.host(cython.cast(cython.uint, (entry & GUEST_FRAME) >> 12))

    def announce(self, guest: cython.uint) -> cython.int:
        """The guest will tell of every store to this page-table page of its own."""
        frame: cython.uint = self.memory.host(guest)
        if frame == NO_HOST:
            return 0
        self.pages.unshadow(frame)
        self.pages.announced[frame] = 1
        return 0

    def release(self, guest: cython.uint) -> cython.int:
        """A page of the guest's is no page table any more."""
        frame: cython.uint = self.memory.host(guest)
        if frame == NO_HOST:
            return 0
        self.pages.unshadow(frame)
        self.pages.announced[frame] = 0
        return 0

    def adopt_tables(self):
        """Announce every table of the current address space; they are in step now."""
        paging: GuestPaging = self.paging
        if not paging.enabled():
            return
        quarter: cython.uint
        if not paging.pae():
            self.adopt_directory(self.memory.host(paging.cr3 >> 12))
            return
        for quarter in range(4):
            if paging.pointer(quarter) & PRESENT:
                self.adopt_directory(self.host_of(paging.pointer(quarter)))

    def adopt_directory(self, frame):
        """Announce a directory and the tables it names."""
        if frame == NO_HOST:
            return
        self.pages.announced[frame] = 1
        wide = bool(self.paging.pae())
        for index in range(512 if wide else 1024):
            address = (frame << 12) + index * (8 if wide else 4)
            entry = self.memory.host64(address) if wide else self.memory.host32(address)
            table = self.host_of(entry)
            if entry & PRESENT and not entry & LARGE and table != NO_HOST:
                self.pages.announced[table] = 1

    # ---- single translations

    def location(self, address: cython.uint) -> cython.uint:
        """Where the processor looks for the leaf of an address; 0 if the way there is cut."""
        pages: ShadowPages = self.pages
        directory: cython.ulonglong = pages.entries[4 * self.current + (address >> 30)]
        if not directory & PRESENT:
            return 0
        slot: cython.uint = 512 * pages.page_index(directory) + ((address >> 21) & 511)
        link: cython.ulonglong = pages.entries[slot]
        if not link & PRESENT:
            return 0
        return 512 * pages.page_index(link) + ((address >> 12) & 511)

    def fetched_from(self, address: cython.uint) -> cython.Py_ssize_t:
        """The host's number of the frame that the engine fetches code at an address from.

        That is by the shadow, which may be behind the guest's tables, and by those where the
        shadow has nothing yet. NO_HOST where no RAM is, -1 where nothing is mapped.
        """
        location: cython.uint = self.location(address)
        entry: cython.ulonglong = self.pages.entries[location]
        frame: cython.uint = cython.cast(cython.uint, (entry & FRAME_MASK) >> 12)
        if location and entry & PRESENT and frame < self.memory.host_count:
            return frame
        if not self.paging.walk(address):
            return -1
        return self.memory.host(self.paging.physical >> 12)

    def drop_translation(self, address: cython.uint, entry: cython.uint) -> cython.int:
        """Forget how an address is mapped by the guest's leaf entry at `entry`."""
        location: cython.uint = self.location(address)
        if location:
            self.pages.drop_leaf(location)
        location = self.follower.copy_of(entry)
        if location:
            self.pages.drop_leaf(location)
        return self.pages.flush_if_stale()

    def has_translation(self, address: cython.uint, entry: cython.uint) -> cython.bint:
        """Is there a leaf for an address, or for the guest's leaf entry at `entry`?"""
        location: cython.uint = self.location(address)
        if location and self.pages.entries[location] & PRESENT:
            return True
        location = self.follower.copy_of(entry)
        return location != 0 and (self.pages.entries[location] & PRESENT) != 0

    # ---- faults

    def resolve(self, address: cython.uint, error: cython.uint) -> cython.int:
        """Judge a page fault of the shadow and, where the guest allows it, fill.

        Answers FILLED, MADE_EXECUTABLE, CODE_WRITE, GUEST_FAULT (with `guest_error`), or,
        with the guest-physical address in `target`, TABLE_WRITE, ROM_WRITE or
        DEVICE_ACCESS; LOGGED for a store that was let through once somebody had noted it.
        """
        if self.pages.running_out():
            self.reset()
        write: cython.bint = (error & ERROR_WRITE) != 0
        user: cython.bint = (error & ERROR_USER) != 0
        fetch: cython.bint = (error & ERROR_FETCH) != 0
        paging: GuestPaging = self.paging
        allowed: cython.bint = paging.translate(address, write, user) >= 0
        if not allowed or (fetch and not paging.executable):
            self.guest_error = paging.error
            # The guest hears of fetches only where it has no-execute itself.
            if fetch and paging.no_execute and paging.pae():
                self.guest_error |= ERROR_FETCH
            return GUEST_FAULT
        guest: cython.uint = paging.physical >> 12
        known: cython.uint = self.memory.entry(guest)
        frame: cython.uint = known >> 12 if known & RAM else NO_HOST
        self.target = paging.physical
        if write:
            if self.pages.code is not None and self.pages.code.is_code(frame):
                mapped: cython.bint = not paging.marked and self.is_mapped(address)
                self.code_written(address, frame)
                if self.is_traced(frame):
                    return TABLE_WRITE
                self.fill(address, write, fetch)
                return CODE_WRITE if mapped else FILLED
            if self.is_traced(frame):
                return TABLE_WRITE
            if known & PROTECTED:
                return ROM_WRITE
            if frame != NO_HOST and self.memory.log.clean[frame]:
                return self.log_write(address, frame, fetch)
        if not fetch and frame == NO_HOST and self.devices.decodes(guest):
            return DEVICE_ACCESS
        return self.fill(address, write, fetch)

    def is_mapped(self, address: cython.uint) -> cython.bint:
        """Does the shadow translate this address?"""
        location: cython.uint = self.location(address)
        return location != 0 and (self.pages.entries[location] & PRESENT) != 0

    def log_write(self, address: cython.uint, frame: cython.uint, fetch: cython.bint) -> cython.int:
        """The first store to a page of a slot that logs them: from now on it needs no exit.

        FILLED where it would have faulted all the same.
        """
        mapped: cython.bint = not self.paging.marked and self.is_mapped(address)
        self.memory.log.written(frame)
        self.fill(address, True, fetch)
        return LOGGED if mapped else FILLED

    def code_written(self, address: cython.uint, frame: cython.uint) -> cython.int:
        """The store to `address` that faulted is to a frame with code: to its own, perhaps."""
        by_itself: cython.bint = False
        if self.paging.walk(self.cpu.linear(self.cpu.eip())):
            by_itself = self.memory.host(self.paging.physical >> 12) == frame
        self.pages.code_written(frame, by_itself)
        # The latest walk must be the store's again.
        self.paging.walk(address)
        return 0

    def fill(self, address: cython.uint, write: cython.bint, fetch: cython.bint) -> cython.int:
        """Give the processor the translation that the latest walk found."""
        paging: GuestPaging = self.paging
        pages: ShadowPages = self.pages
        guest: cython.uint = paging.physical >> 12
        known: cython.uint = self.memory.entry(guest)
        frame: cython.uint = known >> 12 if known & RAM else NO_HOST
        # With CR0.WP clear ring 0 may write where ring 3 may only read: such an
        # entry is writable and ring 0's alone until ring 3 faults on it.
        override: cython.bint = write and not paging.writable
        page: cython.uint = self.link(address, override)
        moved: cython.bint = self.moved
        slot: cython.uint = 512 * page + ((address >> 12) & 511)
        old: cython.ulonglong = pages.entries[slot]
        same: cython.bint = (old & PRESENT) != 0 and (old & FRAME_MASK) >> 12 == frame
        execute: cython.bint = paging.executable and (
            fetch or (same and not old & (NO_EXECUTE | LENT))
        )
        new: cython.ulonglong
        if paging.large:
            new = pages.leaf(guest, known, True, True, execute)
        else:
            new = pages.leaf(
                guest,
                known,
                (paging.pte & USER) != 0 and not (override and not paging.pte & WRITABLE),
                override or (paging.pte & WRITABLE and paging.pte & DIRTY) != 0,
                execute,
            )
            new = pages.mark(paging.pte, new)
        # Where there are several CPUs, a page loses the write permission as well.
        lost: cython.ulonglong = 0 if pages.code is None else WRITABLE | WITHHELD
        pages.store_leaf(slot, new)
        if new != old or moved or address != self.unchanged_at:
            # Where nothing changed, a drain has just filled in what was missing.
            self.unchanged_at = address
        else:
            # Perhaps the tables were right already, and the TLB is behind.
            self.cpu.flush_page(address)
        pages.flush_if_stale()
        if same and not moved and fetch and (old ^ new) & ~lost == NO_EXECUTE:
            return MADE_EXECUTABLE
        return FILLED

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

    def lets_fault_through(self, address: cython.uint, error: cython.uint) -> cython.bint:
        """Would VT-x hand this fault to the guest? If so `guest_error` is its error code."""
        if not self.fault_mask.lets_through(self.location(address), error):
            return False
        self.guest_error = self.fault_mask.guest_error(error)
        return True
