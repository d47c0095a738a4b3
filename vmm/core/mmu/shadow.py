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

import cython

from vmm.core.cpu.cpustate import CpuState
from vmm.core.memory import GuestMemory
from vmm.core.mmu.devicememory import DeviceMemory
from vmm.core.mmu.faultmask import FaultMask
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadowpages import ShadowPages
from vmm.core.mmu.shadowroots import ShadowRoots
from vmm.core.saved import ARRAY, FLAG, PART, U32, U64, BadState, Fields

# Bits of guest and shadow entries alike.
PRESENT = cython.declare(cython.ulonglong, 0x01)
WRITABLE = cython.declare(cython.ulonglong, 0x02)
USER = cython.declare(cython.ulonglong, 0x04)
DIRTY = cython.declare(cython.ulonglong, 0x40)
LARGE = cython.declare(cython.ulonglong, 0x80)
NO_EXECUTE = cython.declare(cython.ulonglong, 1 << 63)
WITHHELD = cython.declare(cython.ulonglong, 0x200)
# The guest allows fetches from here.
FETCHABLE = cython.declare(cython.ulonglong, 0x400)
LENT = cython.declare(cython.ulonglong, 0x800)
FRAME_MASK = cython.declare(cython.ulonglong, 0xFFFFF000)

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

NO_HOST = cython.declare(cython.uint, 0xFFFFFFFF)


@cython.final
@cython.cclass
class ShadowMmu(ShadowRoots):
    """Shadow tables for one CPU, the `index`th, in a pool as `ShadowPages` describes it."""

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
        super().__init__(memory, paging, cpu, pages, index)
        self.fault_mask = FaultMask(paging, pages, self.curtain)
        self.unchanged_at = 0
        self.guest_error = self.target = 0
        self.devices = DeviceMemory(memory)

    def _check_saved(self):
        """One of this CPU's own roots, or the first of all where it has had none."""
        own = range(int(self.first_root), int(self.first_root) + int(self.root_count))
        if self.current and self.current not in own:
            raise BadState(f"root {self.current}: expected from {self.first_root} on")

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

    def link_of(self, root: cython.uint, address: cython.uint) -> cython.uint:
        """Where the link of an address stands below the root there; 0 if the way is cut before."""
        directory: cython.ulonglong = self.pages.entries[root + (address >> 30)]
        if not directory & PRESENT:
            return 0
        return 512 * self.pages.page_index(directory) + ((address >> 21) & 511)

    def location(self, address: cython.uint) -> cython.uint:
        """Where the processor looks for the leaf of an address; 0 if the way there is cut."""
        slot: cython.uint = self.link_of(4 * self.current, address)
        link: cython.ulonglong = self.pages.entries[slot]
        if not slot or not link & PRESENT:
            return 0
        return 512 * self.pages.page_index(link) + ((address >> 12) & 511)

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

    def fetch(
        self, address: cython.uint, into: cython.uchar[::1], at: cython.uint, most: cython.uint
    ) -> cython.uint:
        """Read code as the engine fetches it, `most` bytes or up to the end of its page.

        They come to lie from index `at` on; answers how many. 0 where nothing is mapped, and bytes
        of 0xFF where no RAM is.
        """
        i: cython.uint
        frame: cython.Py_ssize_t = self.fetched_from(address)
        if frame < 0:
            return 0
        count: cython.uint = min(most, 0x1000 - (address & 0xFFF))
        here: cython.Py_ssize_t = (frame << 12) | (address & 0xFFF)
        for i in range(count):
            into[at + i] = 0xFF if frame == NO_HOST else self.memory.bytes[here + i]
        return count

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
        if paging.executable or paging.large:
            # Of a large page it is for the link to say.
            new |= FETCHABLE
        # Where there are several CPUs, a page loses the write permission as well.
        lost: cython.ulonglong = (
            FETCHABLE if pages.code is None else FETCHABLE | WRITABLE | WITHHELD
        )
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

    def makes_executable(self, address: cython.uint, error: cython.uint) -> cython.bint:
        """Is it a fetch for which a leaf lacks nothing but what this engine needs? It has it now.

        The modelled processor fetches by what its TLB has, which may be behind the guest's tables:
        so these are not asked, nor what the guest has told of them.
        """
        pages: ShadowPages = self.pages
        if not error & ERROR_FETCH or not self.cpu.root:
            return False
        # Not `current`: that of the curtain, where it is down.
        slot: cython.uint = self.link_of((self.cpu.root - pages.pool_address) >> 3, address)
        link: cython.ulonglong = pages.entries[slot]
        if not slot or not link & PRESENT or link & NO_EXECUTE:
            return False
        location: cython.uint = 512 * pages.page_index(link) + ((address >> 12) & 511)
        old: cython.ulonglong = pages.entries[location]
        frame: cython.uint = cython.cast(cython.uint, (old & FRAME_MASK) >> 12)
        if (
            not old & PRESENT
            or not old & FETCHABLE
            or not old & (NO_EXECUTE | LENT)
            or frame >= self.memory.host_count
            or (error & ERROR_USER and not old & link & USER)
        ):
            return False
        pages.make_executable(location, frame)
        return True

    def lets_fault_through(self, address: cython.uint, error: cython.uint) -> cython.bint:
        """Would VT-x hand this fault to the guest? If so `guest_error` is its error code."""
        if not self.fault_mask.lets_through(self.location(address), error):
            return False
        self.guest_error = self.fault_mask.guest_error(error)
        return True
