"""The shadow MMU: the tables the processor really runs on.

The processor never sees the guest's page tables. It runs on PAE tables with
no-execute, kept in a pool of pages outside guest memory, which this class fills
from the guest's tables one fault at a time. A guest page that serves as a page
table is *traced*: mapped read-only in the shadow, so that each store to it exits
and the shadow can follow - unless the guest *announced* the page through the ROM
and promised to tell of every store. If it fails to tell, the shadow goes stale
and the guest breaks. That is the contract, and nothing here knows better.

A 32-bit table has 1024 entries and a PAE one 512, so each guest table has two
shadow pages, one a half; a 4 MiB page is shadowed by two *direct* pages, filled at
once since linear memory is mapped that way and one fault per 4 KiB would be an
artefact.
"""

from array import array

import cython

from vmm.core.errors import EngineFailure
from vmm.core.links import Links
from vmm.core.paging import GuestPaging

PRESENT = cython.declare(cython.ulonglong, 0x01)
WRITABLE = cython.declare(cython.ulonglong, 0x02)
USER = cython.declare(cython.ulonglong, 0x04)
ACCESSED_DIRTY = cython.declare(cython.ulonglong, 0x60)
NO_EXECUTE = cython.declare(cython.ulonglong, 1 << 63)
FRAME_MASK = cython.declare(cython.ulonglong, 0xFFFFF000)

GUEST_PRESENT = cython.declare(cython.uint, 0x01)
GUEST_WRITABLE = cython.declare(cython.uint, 0x02)
GUEST_USER = cython.declare(cython.uint, 0x04)
GUEST_ACCESSED = cython.declare(cython.uint, 0x20)
GUEST_DIRTY = cython.declare(cython.uint, 0x40)

ERROR_WRITE = cython.declare(cython.uint, 2)
ERROR_USER = cython.declare(cython.uint, 4)
ERROR_FETCH = cython.declare(cython.uint, 16)

# Kinds of shadow pages.
FREE = cython.declare(cython.uint, 0)
TABLE = cython.declare(cython.uint, 1)
DIRECT = cython.declare(cython.uint, 2)
DIRECTORY = cython.declare(cython.uint, 3)
FIXED = cython.declare(cython.uint, 4)

# What resolve() found.
FILLED = cython.declare(cython.int, 0)
MADE_EXECUTABLE = cython.declare(cython.int, 1)
GUEST_FAULT = cython.declare(cython.int, 2)
TABLE_WRITE = cython.declare(cython.int, 3)
ROM_WRITE = cython.declare(cython.int, 4)

ROOTS = cython.declare(cython.uint, 64)
WINDOWS = cython.declare(cython.uint, 256)
NO_KEY = cython.declare(cython.uint, 0xFFFFFFFF)
# One resolve() allocates at most a root (4 pages) and a table.
PAGE_RESERVE = cython.declare(cython.uint, 8)
# Faults in a row that change nothing before the run is given up.
STUCK_LIMIT = cython.declare(cython.uint, 1000)


@cython.final
@cython.cclass
class ShadowMmu:
    """Shadow tables for one CPU.

    `pool` is a buffer of whole pages that the engine maps at physical
    `pool_address`, outside guest memory; page 0 holds the roots (PDPTs). Physical
    addresses without RAM are mapped to windows of one page each from
    `window_address` on, where the engine answers for them.
    """

    def __init__(self, memory, paging, cpu, pool, pool_address, window_address):
        self.memory = memory
        self.paging = paging
        self.cpu = cpu
        self.entries = memoryview(pool).cast("B").cast("Q")
        self.pool_address = pool_address
        self.page_count = len(pool) >> 12
        pages = self.page_count
        frames = self.memory.frame_count
        self.free_pages = array("I", bytes(4 * pages))
        self.kind = array("I", bytes(4 * pages))
        self.frame_of = array("I", bytes(4 * pages))
        self.half_of = array("I", bytes(4 * pages))
        self.parents = array("I", bytes(4 * pages))
        self.table_of = array("I", bytes(8 * frames))
        self.direct_of = array("I", bytes(4 * 2048))
        self.root_of = array("I", bytes(4 * frames))
        self.announced = bytearray(frames)
        self.mappings = array("I", bytes(4 * frames))
        self.links = Links(8 * frames + 16384)
        self.root_key = array("I", bytes(4 * ROOTS))
        self.root_used = bytearray(ROOTS)
        self.root_pages = array("I", bytes(16 * ROOTS))
        self.root_stamp = array("Q", bytes(8 * ROOTS))
        self.window_frame = array("I", bytes(4 * WINDOWS))
        self.window_address = window_address
        self.stamp = 0
        self.current = 0
        self.stuck = 0
        self.guest_error = self.target = 0
        self.resets = 0
        # Page 1 reads as all ones: what a fetch from an empty bus brings.
        self.void_page = 1
        i: cython.uint
        for i in range(512, 1024):
            self.entries[i] = cython.cast(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)
        self.reset()
        self.resets = 0

    # ---- roots

    def reset(self) -> cython.int:
        """Drop the whole shadow. Announcements stay: they are the guest's word."""
        i: cython.uint
        self.resets += 1
        self.free_count = 0
        for i in range(self.page_count - 1, 1, -1):
            self.kind[i] = FREE
            self.parents[i] = 0
            self.free_pages[self.free_count] = i
            self.free_count += 1
        self.kind[0] = FIXED
        self.kind[1] = FIXED
        for i in range(self.memory.frame_count):
            self.table_of[2 * i] = 0
            self.table_of[2 * i + 1] = 0
            self.root_of[i] = 0
            self.mappings[i] = 0
        for i in range(2048):
            self.direct_of[i] = 0
        for i in range(ROOTS):
            self.root_used[i] = 0
        self.links.clear()
        self.window_used = 0
        return self.load_root()

    def load_root(self) -> cython.int:
        """Run on the shadow of the guest's current CR3, from the cache if it is there."""
        key: cython.uint = NO_KEY
        if self.paging.enabled():
            key = self.paging.cr3 >> 12
        root: cython.uint
        victim: cython.uint = 0
        for root in range(ROOTS):
            if self.root_used[root] and self.root_key[root] == key:
                break
            if not self.root_used[root]:
                if self.root_used[victim]:
                    victim = root
            elif self.root_used[victim] and self.root_stamp[root] < self.root_stamp[victim]:
                victim = root
        else:
            root = victim
            if self.root_used[root]:
                self.free_root(root)
            self.make_root(root, key)
        self.stamp += 1
        self.root_stamp[root] = self.stamp
        self.current = root
        self.tlb_stale = False
        return self.cpu.load_root(self.pool_address + 32 * root)

    def make_root(self, root: cython.uint, key: cython.uint):
        """Four empty directories, and the guest's directory traced from now on."""
        self.root_used[root] = 1
        self.root_key[root] = key
        i: cython.uint
        for i in range(4):
            page: cython.uint = self.allocate(DIRECTORY, 0, 0)
            self.root_pages[4 * root + i] = page
            self.entries[4 * root + i] = (self.pool_address + 4096 * page) | PRESENT
        if key != NO_KEY and self.memory.is_ram(key):
            self.root_of[key] = root + 1
            self.trace(key)

    def free_root(self, root: cython.uint) -> cython.int:
        """Give a root and its directories back; never the one in use."""
        i: cython.uint
        for i in range(4):
            self.free_page(self.root_pages[4 * root + i])
        key: cython.uint = self.root_key[root]
        if key != NO_KEY and self.memory.is_ram(key):
            self.root_of[key] = 0
        self.root_used[root] = 0
        return 0

    def empty_current_root(self) -> cython.int:
        """Forget what the live directory said, keeping it loaded."""
        i: cython.uint
        k: cython.uint
        for i in range(4):
            for k in range(512):
                self.drop_link(512 * self.root_pages[4 * self.current + i] + k)
        return 0

    def flush_if_stale(self) -> cython.int:
        """Flush the TLB if an entry lost a right since the last flush."""
        if self.tlb_stale:
            self.tlb_stale = False
            self.cpu.flush_tlb()
        return 0

    # ---- which guest pages are tables

    def is_traced(self, frame: cython.uint) -> cython.bint:
        """Must stores to this frame exit?"""
        return (
            frame < self.memory.frame_count
            and not self.announced[frame]
            and (self.table_of[2 * frame] | self.table_of[2 * frame + 1] | self.root_of[frame]) != 0
        )

    def is_live_directory(self, frame: cython.uint) -> cython.bint:
        """Is this frame the directory that the guest runs on now?"""
        return self.memory.is_ram(frame) and self.root_of[frame] == self.current + 1

    def trace(self, frame: cython.uint) -> cython.int:
        """Take the write permission from every mapping of a traced frame."""
        if not self.is_traced(frame):
            return 0
        return self.protection_changed(frame)

    def protection_changed(self, frame: cython.uint) -> cython.int:
        """Make every mapping of this frame read-only; stores will be judged anew."""
        if not self.memory.is_ram(frame):
            return 0
        node: cython.uint = self.mappings[frame]
        while node:
            location: cython.uint = self.links.location[node]
            if self.entries[location] & WRITABLE:
                self.entries[location] = self.entries[location] ^ WRITABLE
                self.tlb_stale = True
            node = self.links.follower[node]
        return self.flush_if_stale()

    def announce(self, frame: cython.uint) -> cython.int:
        """The guest will tell of every store to this page-table page."""
        if not self.memory.is_ram(frame):
            return 0
        self.unshadow(frame)
        self.announced[frame] = 1
        return 0

    def release(self, frame: cython.uint) -> cython.int:
        """The page is no page table any more."""
        if not self.memory.is_ram(frame):
            return 0
        self.unshadow(frame)
        self.announced[frame] = 0
        return self.trace(frame)

    def unshadow(self, frame: cython.uint) -> cython.int:
        """Drop everything derived from this frame's contents."""
        half: cython.uint
        for half in range(2):
            if self.table_of[2 * frame + half]:
                self.free_page(self.table_of[2 * frame + half])
        if self.is_live_directory(frame):
            self.empty_current_root()
        elif self.root_of[frame]:
            self.free_root(self.root_of[frame] - 1)
        return 0

    # ---- faults

    def resolve(self, address: cython.uint, error: cython.uint) -> cython.int:
        """Judge a page fault of the shadow and, where the guest allows it, fill.

        Answers FILLED, MADE_EXECUTABLE, GUEST_FAULT (with `guest_error`), or, with
        the guest-physical address in `target`, TABLE_WRITE or ROM_WRITE.
        """
        if self.free_count < PAGE_RESERVE or self.links.nearly_full():
            self.reset()
        write: cython.bint = (error & ERROR_WRITE) != 0
        user: cython.bint = (error & ERROR_USER) != 0
        fetch: cython.bint = (error & ERROR_FETCH) != 0
        paging: GuestPaging = self.paging
        if paging.translate(address, write, user) < 0:
            self.guest_error = paging.error
            return GUEST_FAULT
        frame: cython.uint = paging.physical >> 12
        self.target = paging.physical
        if write:
            if self.is_traced(frame):
                return TABLE_WRITE
            if self.memory.is_protected(frame):
                return ROM_WRITE
        half: cython.uint = (address >> 21) & 1
        page: cython.uint
        if paging.large:
            page = self.direct_page(frame >> 10, half)
        else:
            page = self.table_page(paging.pde >> 12, half)
        # With CR0.WP clear ring 0 may write where ring 3 may only read: such an
        # entry is writable and ring 0's alone until ring 3 faults on it.
        override: cython.bint = write and not paging.writable
        link: cython.ulonglong = (self.pool_address + 4096 * page) | PRESENT | ACCESSED_DIRTY
        if paging.pde & GUEST_USER and not (override and not paging.pde & GUEST_WRITABLE):
            link |= USER
        if (
            paging.pde & GUEST_WRITABLE and (not paging.large or paging.pde & GUEST_DIRTY)
        ) or override:
            link |= WRITABLE
        slot: cython.uint = 512 * self.root_pages[4 * self.current + (address >> 30)]
        slot += (address >> 21) & 511
        moved: cython.bint = self.entries[slot] != link
        if moved:
            self.store_link(slot, link, page)
        slot = 512 * page + ((address >> 12) & 511)
        old: cython.ulonglong = self.entries[slot]
        same: cython.bint = (old & PRESENT) != 0 and (old & FRAME_MASK) >> 12 == frame
        execute: cython.bint = fetch or (same and not old & NO_EXECUTE)
        new: cython.ulonglong
        if paging.large:
            new = self.leaf(frame, True, True, execute)
        else:
            new = self.leaf(
                frame,
                (paging.pte & GUEST_USER) != 0
                and not (override and not paging.pte & GUEST_WRITABLE),
                override or (paging.pte & GUEST_WRITABLE and paging.pte & GUEST_DIRTY) != 0,
                execute,
            )
        self.store_leaf(slot, new)
        if new == old and not moved:
            # The tables were right already: the TLB was behind.
            self.cpu.flush_tlb()
            self.stuck += 1
            if self.stuck > STUCK_LIMIT:
                raise EngineFailure(f"page fault at {address:#x} does not go away")
        else:
            self.stuck = 0
        self.flush_if_stale()
        if same and not moved and fetch and old | NO_EXECUTE == new | NO_EXECUTE:
            return MADE_EXECUTABLE
        return FILLED

    def lets_fault_through(self, address: cython.uint) -> cython.bint:
        """Would the guest get this not-present fault without an exit?

        On VT-x the error-code mask can keep faults on truly not-present entries
        from exiting (KVM's bypass_guest_pf), provided the hypervisor marks entries
        it has not looked at yet in another way. That holds for the leaf tables
        that are shadowed and traced; what the guest announced may be behind its
        notices, so those faults exit.
        """
        paging: GuestPaging = self.paging
        if not paging.enabled() or not paging.pde & GUEST_PRESENT or paging.large:
            return False
        frame: cython.uint = paging.pde >> 12
        half: cython.uint = (address >> 21) & 1
        if not self.memory.is_ram(frame) or self.announced[frame]:
            return False
        slot: cython.uint = 512 * self.root_pages[4 * self.current + (address >> 30)]
        link: cython.ulonglong = self.entries[slot + ((address >> 21) & 511)]
        page: cython.uint = self.table_of[2 * frame + half]
        return (
            page != 0
            and (link & PRESENT) != 0
            and self.page_index(link) == page
            and not paging.pte & GUEST_PRESENT
        )

    def entry_written(self, address: cython.uint) -> cython.int:
        """Follow a store to the guest page-table entry at this physical address."""
        frame: cython.uint = address >> 12
        if not self.memory.is_ram(frame):
            return 0
        index: cython.uint = (address & 0xFFF) >> 2
        page: cython.uint = self.table_of[2 * frame + (index >> 9)]
        if page:
            slot: cython.uint = 512 * page + (index & 511)
            entry: cython.uint = self.memory.read32(address)
            old: cython.ulonglong = self.entries[slot]
            # Only what was accessed before is worth having ready.
            if entry & GUEST_PRESENT and entry & GUEST_ACCESSED and self.memory.is_ram(entry >> 12):
                same: cython.bint = (old & PRESENT) != 0 and (old & FRAME_MASK) >> 12 == entry >> 12
                self.store_leaf(
                    slot,
                    self.leaf(
                        entry >> 12,
                        (entry & GUEST_USER) != 0,
                        (entry & GUEST_WRITABLE) != 0 and (entry & GUEST_DIRTY) != 0,
                        same and not old & NO_EXECUTE,
                    ),
                )
            else:
                self.drop_leaf(slot)
        if self.root_of[frame]:
            root: cython.uint = self.root_of[frame] - 1
            slot = 512 * self.root_pages[4 * root + (index >> 8)] + 2 * (index & 255)
            self.drop_link(slot)
            self.drop_link(slot + 1)
        return 0

    # ---- entries

    def page_index(self, entry: cython.ulonglong) -> cython.uint:
        """The pool page that a link points to."""
        return (cython.cast(cython.uint, entry & FRAME_MASK) - self.pool_address) >> 12

    def leaf(
        self, frame: cython.uint, user: cython.bint, writable: cython.bint, execute: cython.bint
    ) -> cython.ulonglong:
        """A leaf entry; never writable where stores must be seen."""
        entry: cython.ulonglong = PRESENT | ACCESSED_DIRTY
        if user:
            entry |= USER
        if not self.memory.is_ram(frame):
            if execute:
                return entry | (self.pool_address + 4096 * self.void_page)
            return entry | self.window(frame) | (WRITABLE if writable else 0) | NO_EXECUTE
        entry |= cython.cast(cython.ulonglong, frame) << 12
        if writable and not self.is_traced(frame) and not self.memory.is_protected(frame):
            entry |= WRITABLE
        if not execute:
            entry |= NO_EXECUTE
        return entry

    def store_leaf(self, location: cython.uint, entry: cython.ulonglong) -> cython.int:
        """Replace a leaf, keeping the list of mappings and the TLB's honour."""
        old: cython.ulonglong = self.entries[location]
        frame: cython.uint = cython.cast(cython.uint, (entry & FRAME_MASK) >> 12)
        if old & PRESENT:
            if (old ^ entry) & FRAME_MASK:
                self.drop_leaf(location)
                old = 0
            elif old & ~entry & (WRITABLE | USER):
                self.tlb_stale = True
        self.entries[location] = entry
        if not old & PRESENT and self.memory.is_ram(frame):
            self.links.add(self.mappings, frame, location)
        return 0

    def drop_leaf(self, location: cython.uint) -> cython.int:
        """Make a leaf not present."""
        old: cython.ulonglong = self.entries[location]
        if old & PRESENT:
            frame: cython.uint = cython.cast(cython.uint, (old & FRAME_MASK) >> 12)
            if self.memory.is_ram(frame):
                self.links.remove(self.mappings, frame, location)
            self.entries[location] = 0
            self.tlb_stale = True
        return 0

    def store_link(
        self, location: cython.uint, entry: cython.ulonglong, page: cython.uint
    ) -> cython.int:
        """Point a directory entry at a shadow page."""
        old: cython.ulonglong = self.entries[location]
        if old & PRESENT:
            if self.page_index(old) != page:
                self.drop_link(location)
                old = 0
            elif old & ~entry & (WRITABLE | USER):
                self.tlb_stale = True
        if not old & PRESENT:
            self.links.add(self.parents, page, location)
        self.entries[location] = entry
        return 0

    def drop_link(self, location: cython.uint) -> cython.int:
        """Make a directory entry not present."""
        old: cython.ulonglong = self.entries[location]
        if old & PRESENT:
            self.links.remove(self.parents, self.page_index(old), location)
            self.entries[location] = 0
            self.tlb_stale = True
        return 0

    # ---- shadow pages

    def allocate(self, kind: cython.uint, frame: cython.uint, half: cython.uint) -> cython.uint:
        """An empty shadow page."""
        if not self.free_count:
            raise EngineFailure(f"the pool of {self.page_count} shadow pages is too small")
        self.free_count -= 1
        page: cython.uint = self.free_pages[self.free_count]
        i: cython.uint
        for i in range(512 * page, 512 * page + 512):
            self.entries[i] = 0
        self.kind[page] = kind
        self.frame_of[page] = frame
        self.half_of[page] = half
        self.parents[page] = 0
        return page

    def free_page(self, page: cython.uint) -> cython.int:
        """Take a shadow page out of every directory and give it back."""
        i: cython.uint
        if self.kind[page] == DIRECTORY:
            for i in range(512 * page, 512 * page + 512):
                self.drop_link(i)
        else:
            for i in range(512 * page, 512 * page + 512):
                self.drop_leaf(i)
            while self.parents[page]:
                self.drop_link(self.links.location[self.parents[page]])
            if self.kind[page] == TABLE:
                self.table_of[2 * self.frame_of[page] + self.half_of[page]] = 0
            else:
                self.direct_of[2 * self.frame_of[page] + self.half_of[page]] = 0
        self.kind[page] = FREE
        self.free_pages[self.free_count] = page
        self.free_count += 1
        self.tlb_stale = True
        return 0

    def table_page(self, frame: cython.uint, half: cython.uint) -> cython.uint:
        """The shadow of half a guest page table; tracing starts with the first half."""
        page: cython.uint = self.table_of[2 * frame + half]
        if not page:
            page = self.allocate(TABLE, frame, half)
            was_traced: cython.bint = self.is_traced(frame)
            self.table_of[2 * frame + half] = page
            if not was_traced:
                self.trace(frame)
        return page

    def direct_page(self, large_frame: cython.uint, half: cython.uint) -> cython.uint:
        """The shadow of half a 4 MiB page (or of unpaged memory), filled at once."""
        page: cython.uint = self.direct_of[2 * large_frame + half]
        if not page:
            page = self.allocate(DIRECT, large_frame, half)
            self.direct_of[2 * large_frame + half] = page
            i: cython.uint
            frame: cython.uint = 1024 * large_frame + 512 * half
            for i in range(512):
                if self.memory.is_ram(frame + i):
                    self.store_leaf(512 * page + i, self.leaf(frame + i, True, True, False))
        return page

    # ---- where no RAM is

    def window(self, frame: cython.uint) -> cython.uint:
        """The physical address at which the engine answers for this frame."""
        i: cython.uint
        for i in range(self.window_used):
            if self.window_frame[i] == frame:
                return self.window_address + 4096 * i
        if self.window_used == WINDOWS:
            # All windows taken: forget every mapping, theirs included.
            self.close_windows()
        self.window_frame[self.window_used] = frame
        self.window_used += 1
        return self.window_address + 4096 * (self.window_used - 1)

    def close_windows(self):
        """Drop each leaf that maps a window, so that windows can be given out anew."""
        page: cython.uint
        i: cython.uint
        for page in range(2, self.page_count):
            if self.kind[page] == TABLE or self.kind[page] == DIRECT:
                for i in range(512 * page, 512 * page + 512):
                    frame: cython.uint = cython.cast(
                        cython.uint, (self.entries[i] & FRAME_MASK) >> 12
                    )
                    if self.entries[i] & PRESENT and not self.memory.is_ram(frame):
                        self.drop_leaf(i)
        self.window_used = 0

    def window_target(self, window: cython.uint) -> cython.uint:
        """The guest-physical frame behind a window, by number."""
        if window >= self.window_used:
            raise EngineFailure(f"access to window {window} of {self.window_used}")
        return self.window_frame[window]

    def snapshot(self):
        """The tables as they stand, by field name, for the checker."""
        return {
            "entries": memoryview(self.entries),
            "kind": memoryview(self.kind),
            "frame_of": memoryview(self.frame_of),
            "half_of": memoryview(self.half_of),
            "announced": memoryview(self.announced),
            "table_of": memoryview(self.table_of),
            "root_of": memoryview(self.root_of),
        }
