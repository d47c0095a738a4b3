"""Shadow pages: the pool, what each page of it shadows, and which guest pages are traced.

A 32-bit guest table has 1024 entries and a PAE one 512, so a 32-bit page table has
two shadow pages, one a half, and a 32-bit directory four, one a quarter, where each
guest entry has two links; PAE tables have one page each. A large page is shadowed by
a *direct* page for each 2 MiB, filled at once: linear memory is mapped that way, and
one fault per 4 KiB would be an artefact.

Frames are the host's numbers here, as in the entries themselves: a page that the guest has at two
places is one page, traced at both. `leaf` and `direct` alone are told of the guest's.
"""

from array import array

import cython

from vmm.core.errors import EngineFailure
from vmm.core.memory import GuestMemory
from vmm.core.mmu.shadowentries import ShadowEntries
from vmm.core.mmu.shadowstate import load_entries, save_entries
from vmm.core.mmu.windows import Windows
from vmm.core.saved import ARRAY, CUSTOM, FLAG, PART, U32, U64, BadState, Fields

PRESENT = cython.declare(cython.ulonglong, 0x01)
WRITABLE = cython.declare(cython.ulonglong, 0x02)
USER = cython.declare(cython.ulonglong, 0x04)
ACCESSED_DIRTY = cython.declare(cython.ulonglong, 0x60)
NO_EXECUTE = cython.declare(cython.ulonglong, 1 << 63)
# The guest allows fetches from here.
FETCHABLE = cython.declare(cython.ulonglong, 0x400)
LENT = cython.declare(cython.ulonglong, 0x800)
FRAME_MASK = cython.declare(cython.ulonglong, 0xFFFFF000)
ALL_ONES = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)

WITHHELD = cython.declare(cython.ulonglong, 0x200)
# In `mode`, as GuestPaging.mode() says it: the guest's CR4.PAE.
PAE_MODE = cython.declare(cython.uint, 0x20)
WITHHELD_MASK = cython.declare(cython.uint, 63)

# Bits of what GuestMemory.entry() answers.
RAM = cython.declare(cython.uint, 1)
PROTECTED = cython.declare(cython.uint, 2)

# Kinds of shadow pages.
FREE = cython.declare(cython.uint, 0)
TABLE = cython.declare(cython.uint, 1)
DIRECT = cython.declare(cython.uint, 2)
DIRECTORY = cython.declare(cython.uint, 3)
IDENTITY = cython.declare(cython.uint, 4)
FIXED = cython.declare(cython.uint, 5)

# Page 0 holds the roots, 128 of them at most, page 1 reads as all ones.
ROOTS_EACH = cython.declare(cython.uint, 64)
ROOTS_PAGE = cython.declare(cython.uint, 0)
VOID_PAGE = cython.declare(cython.uint, 1)
FIRST_PAGE = cython.declare(cython.uint, 2)
REGIONS = cython.declare(cython.uint, 2048)
# A fault allocates at most a directory and a table.
PAGE_RESERVE = cython.declare(cython.uint, 8)
# Tables out of step at a time; one more is traced as ever.
STRAYS = cython.declare(cython.uint, 1024)


@cython.final
@cython.cclass
class ShadowPages(ShadowEntries):
    """The pool of one machine. Each of the `cpus` has roots of its own, `roots_each` of them."""

    SAVED = Fields(
        {
            PART: "windows code",
            CUSTOM: "entries",
            ARRAY: "announced out_of_step translated unseen strays withheld_at",
            U32: "mode stray_count withheld_next",
            U64: "generation",
            FLAG: "tlb_stale links_stale",
        },
        wiring="memory cpus roots_each pool_address page_count",
        derived="cpu kind frame_of part_of parents table_of directory_of direct_of identity "
        "free_pages free_count mappings links withheld fetched "
        "stale stale_count",
    )

    def __init__(self, memory: GuestMemory, cpus, pool, pool_address, windows: Windows):
        super().__init__(memory, cpus, pool, pool_address)
        self.roots_each = min(ROOTS_EACH, 128 // len(cpus))
        self.windows = windows
        self.generation = 0
        pages = self.page_count
        frames = self.memory.host_count
        self.free_pages = array("I", bytes(4 * pages))
        self.free_count = 0
        self.frame_of = array("I", bytes(4 * pages))
        self.part_of = array("I", bytes(4 * pages))
        self.table_of = array("I", bytes(4 * 2 * frames))
        self.directory_of = array("I", bytes(4 * 4 * frames))
        self.direct_of = array("I", bytes(4 * REGIONS))
        self.identity = array("I", bytes(4 * 4))
        self.announced = bytearray(frames)
        self.out_of_step = bytearray(frames)
        self.strays = array("I", bytes(4 * STRAYS))
        self.stray_count = 0
        i: cython.uint
        for i in range(512 * VOID_PAGE, 512 * VOID_PAGE + 512):
            self.entries[i] = ALL_ONES
        self.clear()

    def running_out(self) -> cython.bint:
        """Is there too little room left for one more fault?"""
        return self.free_count < PAGE_RESERVE or self.links.nearly_full()

    def clear(self) -> cython.int:
        """Drop everything. Announcements stay: they are the guest's word.

        Each CPU must find itself a root again; `generation` tells it.
        """
        i: cython.uint
        self.generation += 1
        self.free_count = 0
        for i in range(self.page_count - 1, FIRST_PAGE - 1, -1):
            self.kind[i] = FREE
            self.parents[i] = 0
            self.free_pages[self.free_count] = i
            self.free_count += 1
        self.kind[ROOTS_PAGE] = FIXED
        self.kind[VOID_PAGE] = FIXED
        for i in range(512 * ROOTS_PAGE, 512 * ROOTS_PAGE + 512):
            self.entries[i] = 0
        for i in range(self.memory.host_count):
            self.table_of[2 * i] = 0
            self.table_of[2 * i + 1] = 0
            self.mappings[i] = 0
            self.fetched[i] = 0
        for i in range(4 * self.memory.host_count):
            self.directory_of[i] = 0
        for i in range(REGIONS):
            self.direct_of[i] = 0
        for i in range(4):
            self.identity[i] = 0
        for i in range(self.stray_count):
            self.out_of_step[self.strays[i]] = 0
        self.stray_count = 0
        self.withheld = 0
        self.links.clear()
        self.windows.forget()
        self.tlb_stale = self.links_stale = True
        return 0

    def wide(self) -> cython.bint:
        """Are the tables those of guest entries of 64 bits?"""
        return (self.mode & PAE_MODE) != 0

    # ---- tracing

    def is_traced(self, frame: cython.uint) -> cython.bint:
        """Must stores to this frame exit?"""
        if frame >= self.memory.host_count or self.announced[frame] or self.out_of_step[frame]:
            return False
        directories: cython.uint = 4 * frame
        return (
            self.table_of[2 * frame]
            | self.table_of[2 * frame + 1]
            | self.directory_of[directories]
            | self.directory_of[directories + 1]
            | self.directory_of[directories + 2]
            | self.directory_of[directories + 3]
        ) != 0

    def trace(self, frame: cython.uint) -> cython.int:
        """Take the write permission from every mapping of a traced frame."""
        if not self.is_traced(frame):
            return 0
        self.make_read_only(frame)
        return self.flush_if_stale()

    def catch_writes(self, frames):
        """Have the next store to each of these frames exit; every CPU's TLB follows."""
        for frame in frames:
            self.make_read_only(frame)
        self.flush_if_stale()

    def forget_promises(self, frames):
        """Frames have come to lie elsewhere: what a guest announced, it announced by address."""
        for frame in frames:
            self.announced[frame] = 0

    def make_read_only(self, frame: cython.uint) -> cython.int:
        """Take the write permission from every mapping of a frame."""
        node: cython.uint = self.mappings[frame]
        while node:
            location: cython.uint = self.links.location[node]
            if self.entries[location] & WRITABLE:
                self.entries[location] = self.entries[location] ^ WRITABLE
                if self.entries[location] & USER and self.kind[location >> 9] == TABLE:
                    old: cython.ulonglong = self.entries[location]
                    self.entries[location] = old | WITHHELD
                    self.count_withheld(location, old, old | WITHHELD)
                self.lost(location)
            node = self.links.follower[node]
        return 0

    # ---- entries

    def leaf(
        self,
        guest: cython.uint,
        known: cython.uint,
        user: cython.bint,
        writable: cython.bint,
        execute: cython.bint,
    ) -> cython.ulonglong:
        """A leaf entry for a frame of the guest's; never writable where stores must be seen.

        `known` is what `GuestMemory.entry` answers of it.
        """
        entry: cython.ulonglong = PRESENT | ACCESSED_DIRTY
        if user:
            entry |= USER
        frame: cython.uint = known >> 12
        if not known & RAM:
            if execute:
                return entry | (self.pool_address + 4096 * VOID_PAGE)
            if self.windows.full():
                self.close_windows()
            if writable:
                entry |= WRITABLE
            return entry | self.windows.find(guest) | NO_EXECUTE
        entry |= cython.cast(cython.ulonglong, frame) << 12
        if self.code is not None:
            if execute and not self.code.is_watched(frame):
                self.code.executed(frame)
                self.make_read_only(frame)
            if self.code.is_code(frame):
                writable = False
        if (
            writable
            and not known & PROTECTED
            and not self.memory.log.clean[frame]
            and not self.is_traced(frame)
        ):
            entry |= WRITABLE
        if not execute:
            entry |= self.data_bits(frame) if entry & WRITABLE else NO_EXECUTE
        return entry

    def make_executable(self, location: cython.uint, frame: cython.uint) -> cython.int:
        """Let code be fetched from a frame of memory through the leaf at a location."""
        if self.code is not None and not self.code.is_watched(frame):
            self.code.executed(frame)
            self.make_read_only(frame)
        self.store_leaf(location, self.entries[location] & ~(NO_EXECUTE | LENT))
        return self.flush_if_stale()

    # ---- pages

    def allocate(self, kind: cython.uint, frame: cython.uint, part: cython.uint) -> cython.uint:
        """An empty page."""
        if not self.free_count:
            raise EngineFailure(f"the pool of {self.page_count} shadow pages is too small")
        self.free_count -= 1
        page: cython.uint = self.free_pages[self.free_count]
        i: cython.uint
        for i in range(512 * page, 512 * page + 512):
            self.entries[i] = 0
        self.kind[page] = kind
        self.frame_of[page] = frame
        self.part_of[page] = part
        self.parents[page] = 0
        return page

    def free(self, page: cython.uint) -> cython.int:
        """Empty a page, take it out of whatever links to it, and give it back."""
        i: cython.uint
        kind: cython.uint = self.kind[page]
        frame: cython.uint = self.frame_of[page]
        part: cython.uint = self.part_of[page]
        for i in range(512 * page, 512 * page + 512):
            if not self.entries[i] & PRESENT:
                continue
            if kind == DIRECTORY or kind == IDENTITY:
                self.drop_link(i)
            else:
                self.drop_leaf(i)
        while self.parents[page]:
            self.drop_link(self.links.location[self.parents[page]])
        if kind == TABLE:
            self.table_of[2 * frame + part] = 0
        elif kind == DIRECTORY:
            self.directory_of[4 * frame + part] = 0
        elif kind == DIRECT:
            self.direct_of[frame] = 0
        else:
            self.identity[part] = 0
        self.kind[page] = FREE
        self.free_pages[self.free_count] = page
        self.free_count += 1
        self.tlb_stale = True
        return 0

    def table(self, frame: cython.uint, half: cython.uint) -> cython.uint:
        """The shadow of a guest page table, or of half of a 32-bit one."""
        page: cython.uint = self.table_of[2 * frame + half]
        if not page:
            was_traced: cython.bint = self.is_traced(frame)
            page = self.allocate(TABLE, frame, half)
            self.table_of[2 * frame + half] = page
            if not was_traced:
                self.trace(frame)
        return page

    def directory(self, frame: cython.uint, quarter: cython.uint) -> cython.uint:
        """The shadow of a guest directory, or of a quarter of a 32-bit one."""
        page: cython.uint = self.directory_of[4 * frame + quarter]
        if not page:
            if self.out_of_step[frame]:
                # A table that becomes a directory must be traced, and start afresh.
                self.unshadow(frame)
                self.out_of_step[frame] = 0
            was_traced: cython.bint = self.is_traced(frame)
            page = self.allocate(DIRECTORY, frame, quarter)
            self.directory_of[4 * frame + quarter] = page
            if not was_traced:
                self.trace(frame)
        return page

    def identity_directory(self, quarter: cython.uint) -> cython.uint:
        """What a quarter of the address space runs on while paging is off."""
        page: cython.uint = self.identity[quarter]
        if not page:
            page = self.allocate(IDENTITY, 0, quarter)
            self.identity[quarter] = page
        return page

    def direct(self, region: cython.uint) -> cython.uint:
        """The shadow of 2 MiB of guest-physical memory that large pages map."""
        page: cython.uint = self.direct_of[region]
        if not page:
            page = self.allocate(DIRECT, region, 0)
            self.direct_of[region] = page
            i: cython.uint
            for i in range(512):
                known: cython.uint = self.memory.entry(512 * region + i)
                if known & RAM:
                    leaf: cython.ulonglong = self.leaf(512 * region + i, known, True, True, False)
                    self.store_leaf(512 * page + i, leaf | FETCHABLE)
        return page

    def unshadow(self, frame: cython.uint) -> cython.int:
        """Drop everything derived from a frame's contents."""
        i: cython.uint
        if frame >= self.memory.host_count:
            return 0
        for i in range(2):
            if self.table_of[2 * frame + i]:
                self.free(self.table_of[2 * frame + i])
        for i in range(4):
            if self.directory_of[4 * frame + i]:
                self.free(self.directory_of[4 * frame + i])
        return 0

    def close_windows(self) -> cython.int:
        """Drop each leaf that maps a window, so that windows can be given out anew."""
        page: cython.uint
        i: cython.uint
        for page in range(FIRST_PAGE, self.page_count):
            if self.kind[page] == TABLE or self.kind[page] == DIRECT:
                for i in range(512 * page, 512 * page + 512):
                    frame: cython.uint = cython.cast(
                        cython.uint, (self.entries[i] & FRAME_MASK) >> 12
                    )
                    if self.entries[i] & PRESENT and frame >= self.memory.host_count:
                        self.drop_leaf(i)
        return self.windows.forget()

    def _save_entries(self):
        """For `vmm.core.saved`; see `vmm.core.mmu.shadowstate`."""
        return save_entries(self)

    def _load_entries(self, value):
        """The same."""
        load_entries(self, value)

    def _check_saved(self):
        """Frames that there are among the strays, entries that there are among the withheld."""
        strays = [*memoryview(self.strays)][: self.stray_count]
        if self.stray_count > STRAYS or max(strays, default=0) >= self.memory.host_count:
            raise BadState(f"{self.stray_count} tables out of step")
        if (
            max(memoryview(self.withheld_at)) >= 512 * self.page_count
            or self.withheld_next > WITHHELD_MASK
        ):
            raise BadState(f"withheld entries up to {max(memoryview(self.withheld_at))}")

    def snapshot(self):
        """The tables as they stand, by field name, for the checker."""
        return {
            "entries": memoryview(self.entries),
            "kind": memoryview(self.kind),
            "frame_of": memoryview(self.frame_of),
            "part_of": memoryview(self.part_of),
            "announced": memoryview(self.announced),
            "out_of_step": memoryview(self.out_of_step),
            "table_of": memoryview(self.table_of),
            "directory_of": memoryview(self.directory_of),
            "pool": (self.pool_address, self.page_count),
        }
