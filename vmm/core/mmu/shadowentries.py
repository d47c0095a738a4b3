"""The entries of shadow tables, and what follows from a change of one.

Every change keeps three things true: each present leaf is on the list of mappings
of its guest frame, each link on the list of parents of its page, and `tlb_stale` is
set when an entry lost a right that a TLB may still grant - `links_stale` as well if
that entry was a link, and so stands for more than one page. The first few leaves that
lost a right are remembered: a TLB forgets these alone where that is all.

All CPUs of a machine run on the same tables, one of them at a time. The one that runs
flushes its TLB on the spot; the others are told, and flush before they run on.
"""

from array import array

import cython

from vmm.core.cpu.cpustate import CpuState
from vmm.core.memory import GuestMemory
from vmm.core.mmu.codepages import CodePages
from vmm.core.mmu.links import Links

PRESENT = cython.declare(cython.ulonglong, 0x01)
WRITABLE = cython.declare(cython.ulonglong, 0x02)
USER = cython.declare(cython.ulonglong, 0x04)
NO_EXECUTE = cython.declare(cython.ulonglong, 1 << 63)
FRAME_MASK = cython.declare(cython.ulonglong, 0xFFFFF000)

# Ring 3 has less here than the guest grants it.
WITHHELD = cython.declare(cython.ulonglong, 0x200)
# The right to execute is there for the engine's sake.
LENT = cython.declare(cython.ulonglong, 0x800)
# In `mode`, as GuestPaging.mode() says it: the guest's EFER.NXE.
NO_EXECUTE_MODE = cython.declare(cython.uint, 1)
WITHHELD_MASK = cython.declare(cython.uint, 63)

# How many leaves may lose rights before the TLB is flushed whole, and how many ways to a
# shadow page are worth looking for.
FEW = cython.declare(cython.uint, 16)
WAYS = cython.declare(cython.uint, 8)

# Kinds of shadow pages whose entries are leaves.
TABLE = cython.declare(cython.uint, 1)
DIRECT = cython.declare(cython.uint, 2)


@cython.cclass
class ShadowEntries:
    """The entries of one machine's pool, and who maps or links to what.

    `pool` is a buffer of whole pages that each engine maps at physical
    `pool_address`, outside guest memory. A location is an index into all its
    64-bit entries.
    """

    def __init__(self, memory: GuestMemory, cpus, pool, pool_address):
        self.memory = memory
        self.cpus = tuple(cpus)
        self.cpu = cpus[0]
        self.mode = 0
        self.entries = memoryview(pool).cast("B").cast("Q")
        self.pool_address = pool_address
        self.page_count = len(pool) >> 12
        frames = self.memory.host_count
        self.kind = array("I", bytes(4 * self.page_count))
        self.parents = array("I", bytes(4 * self.page_count))
        self.mappings = array("I", bytes(4 * frames))
        self.links = Links(8 * frames + 16384)
        self.tlb_stale = self.links_stale = False
        self.stale = array("I", bytes(4 * FEW))
        self.stale_count = 0
        self.withheld = self.withheld_next = 0
        self.withheld_at = array("I", bytes(4 * (WITHHELD_MASK + 1)))
        # With one CPU its engine sees every store to code.
        self.code = CodePages(frames, len(cpus)) if len(cpus) > 1 else None
        self.translated = bytearray(frames)
        self.fetched = array("I", bytes(4 * frames))
        self.unseen = bytearray(frames)

    # ---- changes

    def page_index(self, entry: cython.ulonglong) -> cython.uint:
        """The pool page that a link points to."""
        return (cython.cast(cython.uint, entry & FRAME_MASK) - self.pool_address) >> 12

    def link_to(self, page: cython.uint) -> cython.ulonglong:
        """A link to a page, without rights yet."""
        return (self.pool_address + 4096 * page) | PRESENT

    def store_leaf(self, location: cython.uint, entry: cython.ulonglong) -> cython.int:
        """Replace a leaf."""
        old: cython.ulonglong = self.entries[location]
        frame: cython.uint = cython.cast(cython.uint, (entry & FRAME_MASK) >> 12)
        if old & PRESENT:
            if (old ^ entry) & FRAME_MASK:
                self.drop_leaf(location)
                old = 0
            elif (old & ~entry & (WRITABLE | USER)) | (entry & ~old & NO_EXECUTE):
                self.lost(location)
        self.entries[location] = entry
        self.count_withheld(location, old, entry)
        if frame < self.memory.host_count:
            if not old & PRESENT:
                self.links.add(self.mappings, frame, location)
            if not old & entry & NO_EXECUTE:
                self.count_fetched(frame, old, entry)
        return 0

    def drop_leaf(self, location: cython.uint) -> cython.int:
        """Make a leaf not present."""
        old: cython.ulonglong = self.entries[location]
        if old & PRESENT:
            frame: cython.uint = cython.cast(cython.uint, (old & FRAME_MASK) >> 12)
            if frame < self.memory.host_count:
                self.links.remove(self.mappings, frame, location)
                if not old & NO_EXECUTE:
                    self.count_fetched(frame, old, 0)
            self.entries[location] = 0
            self.count_withheld(location, old, 0)
            self.lost(location)
        return 0

    def store_link(self, location: cython.uint, entry: cython.ulonglong) -> cython.int:
        """Point an entry of a root or directory at a shadow page."""
        old: cython.ulonglong = self.entries[location]
        if old & PRESENT:
            if (old ^ entry) & FRAME_MASK:
                self.drop_link(location)
                old = 0
            elif (old & ~entry & (WRITABLE | USER)) | (entry & ~old & NO_EXECUTE):
                self.lost_link(location)
        if not old & PRESENT:
            self.links.add(self.parents, self.page_index(entry), location)
        self.entries[location] = entry
        self.count_withheld(location, old, entry)
        return 0

    def drop_link(self, location: cython.uint) -> cython.int:
        """Make an entry of a root or directory not present."""
        old: cython.ulonglong = self.entries[location]
        if old & PRESENT:
            self.links.remove(self.parents, self.page_index(old), location)
            self.entries[location] = 0
            self.count_withheld(location, old, 0)
            self.lost_link(location)
        return 0

    # ---- what TLBs may still grant

    def lost(self, location: cython.uint) -> cython.int:
        """A leaf has lost a right."""
        self.tlb_stale = True
        if self.stale_count < FEW:
            self.stale[self.stale_count] = location
        if self.stale_count <= FEW:
            self.stale_count += 1
        return 0

    def lost_link(self, location: cython.uint) -> cython.int:
        """A link has lost a right; what is not below the root in use is in no TLB entry."""
        quarter: cython.uint
        self.tlb_stale = True
        if not self.cpu.root:
            return 0
        root: cython.uint = (self.cpu.root - self.pool_address) >> 3
        for quarter in range(4):
            directory: cython.ulonglong = self.entries[root + quarter]
            if location == root + quarter or (
                directory & PRESENT and self.page_index(directory) == location >> 9
            ):
                self.links_stale = True
        return 0

    def flush_if_stale(self) -> cython.int:
        """Flush the TLB if an entry lost a right since the last flush."""
        if self.tlb_stale:
            few: cython.bint = self.cpu.root and not self.links_stale and self.stale_count <= FEW
            if not few or not self.flush_leaves():
                self.cpu.flush_tlb()
            self.settle()
        return 0

    def flush_leaves(self) -> cython.bint:
        """Flush the remembered leaves from the TLB, if that can be done.

        No link has lost a right since the last flush: so whatever the TLB may have of a
        leaf, it has under the addresses that lead there now.
        """
        i: cython.uint
        quarter: cython.uint
        root: cython.uint = (self.cpu.root - self.pool_address) >> 3
        for i in range(self.stale_count):
            location: cython.uint = self.stale[i]
            kind: cython.uint = self.kind[location >> 9]
            if kind != TABLE and kind != DIRECT:
                return False
            ways: cython.uint = 0
            node: cython.uint = self.parents[location >> 9]
            while node:
                ways += 1
                if ways > WAYS:
                    return False
                link: cython.uint = self.links.location[node]
                for quarter in range(4):
                    directory: cython.ulonglong = self.entries[root + quarter]
                    if directory & PRESENT and self.page_index(directory) == link >> 9:
                        self.cpu.flush_page(
                            (quarter << 30) | ((link & 511) << 21) | ((location & 511) << 12)
                        )
                node = self.links.follower[node]
        return True

    def flush_page(self, address: cython.uint) -> cython.int:
        """Forget how an address is mapped, as INVLPG does.

        A guest's large page goes whole (SDM vol. 3, section 4.10.4.1), but not its
        neighbours, whose entries the guest has yet to tell of.
        """
        if self.links_stale:
            return self.flush_if_stale()
        return self.cpu.flush_page(address)

    def settle(self) -> cython.int:
        """The CPU that runs flushes its TLB now; let the others do so before they run on."""
        if self.tlb_stale:
            self.tlb_stale = self.links_stale = False
            self.stale_count = 0
            if len(self.cpus) > 1:
                self.others_are_behind()
        return 0

    def others_are_behind(self):
        """Every CPU but the one that runs may have a translation that was withdrawn."""
        for cpu in self.cpus:
            if cpu is not self.cpu:
                cpu.tlb_behind = True

    def switch_to(self, cpu: CpuState) -> cython.int:
        """`cpu` is the one that runs from now on, on what the tables say now."""
        if self.cpu is not cpu:
            if self.tlb_stale:
                # The CPU that stops may live with that until it invalidates, but what it
                # withdrew it may also have told the next one about.
                self.settle()
                self.cpu.tlb_behind = True
            self.cpu = cpu
        if cpu.tlb_behind:
            cpu.tlb_behind = False
            cpu.flush_tlb()
        return 0

    # ---- rights that ring 3 has by the guest's tables and not here

    def mark(self, guest: cython.ulonglong, entry: cython.ulonglong) -> cython.ulonglong:
        """The entry, marked if it gives ring 3 less than the guest's does."""
        if guest & USER and (not entry & USER or guest & ~entry & WRITABLE):
            return entry | WITHHELD
        return entry

    def count_withheld(
        self, location: cython.uint, old: cython.ulonglong, new: cython.ulonglong
    ) -> cython.int:
        """An entry changed: how many withhold something from ring 3, and which?"""
        if (old ^ new) & WITHHELD:
            if new & WITHHELD:
                self.withheld_at[self.withheld_next] = location
                self.withheld_next = (self.withheld_next + 1) & WITHHELD_MASK
                self.withheld += 1
            else:
                self.withheld -= 1
        return 0

    def drop_withheld(self) -> cython.int:
        """Drop the leaves that withhold something from ring 3, as far as they are remembered."""
        i: cython.uint
        for i in range(WITHHELD_MASK + 1):
            location: cython.uint = self.withheld_at[i]
            if self.entries[location] & WITHHELD and self.kind[location >> 9] == TABLE:
                self.drop_leaf(location)
        return self.flush_if_stale()

    # ---- code that is stored to through another mapping

    # The engine sees a store to code that it has translated only through a mapping that is
    # executable itself: of stores through another one it sees the first, and forgets the code
    # that this one hits, not the rest of the page (Unicorn 2.1.4, cputlb.c, notdirty_write).
    # So while a frame has a mapping that code was fetched through, its writable mappings are
    # executable as well, which costs nothing but speed: the right is *lent* to them, until the
    # frame is mapped as data. A guest with no-execute of its own would notice; there the
    # engine's gap remains. Code that comes back is translated anew if stores were `unseen`.

    def data_bits(self, frame: cython.uint) -> cython.ulonglong:
        """What a writable mapping of this frame has, through which no code is fetched."""
        if not self.mode & NO_EXECUTE_MODE and (
            self.fetched[frame] != 0 if self.code is None else self.code.is_mixed(frame)
        ):
            return LENT
        if not self.unseen[frame] and not self.fetched[frame]:
            self.lend(frame, LENT)
        self.unseen[frame] = 1
        return NO_EXECUTE

    def count_fetched(
        self, frame: cython.uint, old: cython.ulonglong, new: cython.ulonglong
    ) -> cython.int:
        """A mapping of a frame changes: is there still one that code is fetched through?"""
        was: cython.bint = (old & PRESENT) != 0 and not old & (NO_EXECUTE | LENT)
        now: cython.bint = (new & PRESENT) != 0 and not new & (NO_EXECUTE | LENT)
        if was == now:
            return 0
        self.fetched[frame] += 1 if now else -1
        if now and self.fetched[frame] == 1:
            if self.translated[frame] and self.unseen[frame]:
                self.cpu.forget_code(frame)
            # The engine may have translated it ever since.
            self.translated[frame] = 1
            self.unseen[frame] = 0
            self.lend(frame, WRITABLE | NO_EXECUTE)
        return 0

    def lend(self, frame: cython.uint, which: cython.ulonglong) -> cython.int:
        """Lend the right to execute to mappings with these bits, or take it back."""
        if self.code is not None or self.mode & NO_EXECUTE_MODE:
            return 0
        node: cython.uint = self.mappings[frame]
        while node:
            location: cython.uint = self.links.location[node]
            if (self.entries[location] & which) == which:
                self.entries[location] = self.entries[location] ^ (LENT | NO_EXECUTE)
                self.lost(location)
            node = self.links.follower[node]
        return 0

    def code_written(self, frame, by_itself):
        """A CPU stores to a frame with code: it is data from now on, unless it is mixed."""
        if self.code.written(frame, by_itself):
            node: cython.uint = self.mappings[frame]
            while node:
                location: cython.uint = self.links.location[node]
                old: cython.ulonglong = self.entries[location]
                self.entries[location] = old | NO_EXECUTE
                # Who fetches from here next must know that it was data in between.
                self.count_fetched(frame, old, old | NO_EXECUTE)
                self.lost(location)
                node = self.links.follower[node]
