"""The monitor's end of the batch queue; vmi/queue.py describes the protocol.

Whatever the guest puts into the queue, the drain reads at most `capacity` records
inside the region it checked at attach time, and a record can only make the shadow
look again at the guest's own tables.
"""

import cython

from vmi.doorbell import Feature
from vmi.queue import (
    CURTAIN_END,
    DRAINED,
    FAULT_PAGE_VALID,
    HEADER_SIZE,
    MAX_CAPACITY,
    NO_FAULT_PAGE,
    Ability,
    HeaderField,
    HomeField,
    RecordKind,
)
from vmm.core.memory import GuestMemory
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadow import ShadowMmu
from vmm.core.paravirt.queueregion import QueueRefused, check_region
from vmm.core.saved import FLAG, U32, U64, BadState, Fields

COUNT_OFFSET = cython.declare(cython.uint, HeaderField.COUNT)
DOWNGRADE_OFFSET = cython.declare(cython.uint, HeaderField.DOWNGRADE)
RECORDS_OFFSET = cython.declare(cython.uint, HeaderField.RECORDS)
ENTRY = cython.declare(cython.uint, RecordKind.ENTRY)
ALLOCATE = cython.declare(cython.uint, RecordKind.ALLOCATE)
FAULT_PAGE_OFFSET = cython.declare(cython.uint, HeaderField.FAULT_PAGE)
NO_FAULT = cython.declare(cython.uint, NO_FAULT_PAGE)
FAULT_VALID = cython.declare(cython.uint, FAULT_PAGE_VALID)
# What a machine with several processors does not grant, or not to all.
ALONE_ONLY = Feature.ALONE | Feature.CURTAIN | Feature.IDE | Feature.REFLECT
NO_PAGE = cython.declare(cython.uint, 0xFFFFFFFF)
DRAINED_SLOT = cython.declare(cython.uint, DRAINED)


@cython.final
@cython.cclass
class BatchQueue:
    """The queue of one CPU, which is the one with this `index` in the machine.

    What one CPU queued concerns all, since a store to memory does: every drain and every
    look at a fault page goes through the queues of the `peers` as well. So a CPU that sends
    an interrupt has told of all it queued: the access to its APIC exits, and drains.
    CPUs may run on before they invalidate, but none ever runs on a TLB that is behind a drain.

    A ROM that has a home for each CPU has them all attached at once. One with fewer gets
    the queue for whoever asks, but is not told that there is a shadow: what it keeps of
    one processor would be taken for another's.

    `offered` are the `Feature` bits that attaching grants. After a run `updates`
    counts the entries that were announced through the queue, `notices` all records,
    `drains` the drains that found any, `largest` the most records in one of them.
    """

    SAVED = Fields(
        {
            U32: "header first_header capacity image_start image_end fault_page fault_entry "
            "largest",
            U64: "updates notices drains",
            FLAG: "attached has_home",
        },
        wiring="memory paging shadow offered index peers",
    )

    def __init__(self, memory: GuestMemory, paging: GuestPaging, shadow: ShadowMmu, offered, index):
        self.memory = memory
        self.paging = paging
        self.shadow = shadow
        self.offered = offered
        self.index = index
        self.header = self.first_header = self.capacity = 0
        self.image_start = self.image_end = 0
        self.attached = self.has_home = False
        self.fault_page = NO_PAGE
        self.fault_entry = 0
        self.peers: tuple[BatchQueue, ...] = ()
        self.updates = self.notices = self.drains = 0
        self.largest = 0

    def allow(self, start, end):
        """Where a queue may lie: inside the ROM image at [start, end), as firmware left it."""
        self.image_start = start
        self.image_end = end

    def attach(self, address):
        """Accept the queue whose header is at this guest-virtual address.

        Makes the region writable and answers the `Feature` bits that are granted. Raises
        `QueueRefused`, with nothing changed, when the region is not page-aligned room inside
        the ROM image or the header is not one.
        """
        region = check_region(
            self.memory,
            lambda virtual: int(self.paging.translate(virtual, False, False)),
            address,
            (int(self.image_start), int(self.image_end)),
        )
        self.memory.set_protected(region.first_frame, region.frames, False)
        granted = int(self.offered) & ~int(ALONE_ONLY)
        if not self.peers:
            self.move_in(region, 0)
            granted |= Feature.ALONE | int(self.offered & (Feature.IDE | Feature.REFLECT))
            if self.hang_curtain(address):
                granted |= Feature.CURTAIN
        elif len(self.peers) < region.homes:
            for queue in (self, *self.peers):
                queue.move_in(region, queue.index)
        else:
            self.move_in(region, 0)
            self.has_home = False
            granted &= ~int(Feature.SHADOW | Feature.IN_STEP)
        return granted

    def move_in(self, region, home):
        """Queue in the ROM's home of this number from now on."""
        self.header = region.header + home * region.stride
        self.first_header = region.header
        self.capacity = region.capacity
        self.attached = self.has_home = True

    def hang_curtain(self, address):
        """Hang the curtain where it is offered and the ROM can lower it; answers whether.

        A ROM below the curtain's end would hide itself. With several CPUs, which is not
        asked here, one of them could fault on what another has changed.
        """
        able = self.memory.read32(self.header + HeaderField.ABILITIES)
        if not (
            self.offered & Feature.CURTAIN and able & Ability.CURTAIN and address >= CURTAIN_END
        ):
            return False
        self.shadow.curtain.hang(self.header + HeaderField.CURTAIN)
        return True

    def number_of_home(self):
        """FIND_HOME: which home is this CPU's, 1 for the first; 0 where there is none."""
        return self.index + 1 if self.has_home else 0

    def move_out(self):
        """INIT: what the ROM knows of this CPU is true no more."""
        self.forget_fault_page()
        if self.has_home and self.peers:
            behind = self.header + HeaderField.RECORDS + 4 * self.capacity
            self.memory.write32(behind + HomeField.KEY, 0)

    def is_in_image(self, start, size):
        """Does it lie inside the ROM image, whole?"""
        return bool(self.image_start <= start and start + size <= self.image_end)

    def _check_saved(self):
        """What `attach` and `check_region` see to, as far as the drain relies on it."""
        if not self.image_start <= self.image_end <= self.memory.size:
            raise BadState(f"a ROM at {self.image_start:#x}-{self.image_end:#x}")
        if self.attached:
            end = self.header + HEADER_SIZE + 4 * self.capacity
            if not (
                1 <= self.capacity <= MAX_CAPACITY
                and self.image_start <= self.first_header <= self.header
                and end <= self.image_end
                and not (self.header | self.first_header) & 3
            ):
                raise BadState(f"a queue of {self.capacity} records at {self.header:#x}")

    def location(self):
        """Guest-physical address and capacity of the attached queue."""
        return int(self.header), int(self.capacity)

    def locate(self, address):
        """The guest-physical address, by the guest's tables; raises `QueueRefused`."""
        address &= 0xFFFFFFFF
        physical = self.paging.translate(address, False, False)
        if physical < 0:
            raise QueueRefused(f"queue address {address:#010x} is not mapped")
        return physical

    def depth(self) -> cython.uint:
        """How many records wait, as the queue's header has it."""
        if not self.attached:
            return 0
        return min(self.memory.read32(self.header + COUNT_OFFSET), self.capacity)

    def drain(self) -> cython.int:
        """Apply every record, of every CPU; answers how many there were."""
        applied: cython.uint = self.drain_own()
        if self.peers:
            for queue in self.peers:
                peer: BatchQueue = queue
                applied += peer.drain_own()
        # Now the shadow knows every entry again.
        self.shadow.curtain.lift(self.shadow.current)
        return applied

    def drain_own(self) -> cython.int:
        """Apply every record of this CPU; answers how many there were."""
        if not self.attached:
            return 0
        memory: GuestMemory = self.memory
        count: cython.uint = memory.read32(self.header + COUNT_OFFSET)
        if count == 0:
            return 0
        count = min(count, self.capacity)
        applied: cython.uint = 0
        in_flight: cython.uint = 0
        record: cython.uint
        i: cython.uint
        slots: cython.uint = self.header + RECORDS_OFFSET
        for i in range(count):
            if memory.read32(slots + 4 * i) == 0:
                in_flight = i + 1
        for i in range(count):
            record = memory.read32(slots + 4 * i)
            if record:
                memory.write32(slots + 4 * i, DRAINED_SLOT if i < in_flight else 0)
            if record & 3:
                self.apply(record)
                applied += 1
        memory.write32(self.header + COUNT_OFFSET, in_flight)
        # Whoever set it has its record in place, and no CPU runs before all queues are drained.
        memory.write32(self.first_header + DOWNGRADE_OFFSET, 0)
        if applied:
            self.check_fault_page()
            self.drains += 1
            self.largest = max(self.largest, applied)
        self.shadow.flush_if_stale()
        return applied

    def publish_fault_page(self, address: cython.uint) -> cython.int:
        """Tell the ROM that no translation of this page, which the latest walk found, is cached."""
        if self.has_home:
            self.fault_page = address >> 12
            self.fault_entry = self.paging.pte_address
            self.shadow.drop_translation(address, self.fault_entry)
            self.memory.write32(
                self.header + FAULT_PAGE_OFFSET, ((address >> 12) << 12) | FAULT_VALID
            )
        return 0

    def is_served(self) -> cython.bint:
        """Does what this CPU's ROM queues, here or in another CPU's queue, get drained?"""
        if self.attached:
            return True
        if self.peers:
            for queue in self.peers:
                peer: BatchQueue = queue
                if peer.attached:
                    return True
        return False

    def forget_fault_page(self) -> cython.int:
        """The promise of `publish_fault_page` ends."""
        if self.fault_page != NO_PAGE:
            self.fault_page = NO_PAGE
            self.memory.write32(self.header + FAULT_PAGE_OFFSET, NO_FAULT)
        return 0

    def check_fault_page(self) -> cython.int:
        """The shadow may have got translations: one of a CPU's fault page, too?"""
        self.check_own_fault_page()
        if self.peers:
            for queue in self.peers:
                peer: BatchQueue = queue
                peer.check_own_fault_page()
        return 0

    def check_own_fault_page(self) -> cython.int:
        """The same for the page that this CPU was told of."""
        if self.fault_page != NO_PAGE and self.shadow.has_translation(
            self.fault_page << 12, self.fault_entry
        ):
            self.forget_fault_page()
        return 0

    def apply(self, record: cython.uint) -> cython.int:
        """Act on one record; unknown kinds cannot occur, two bits hold them all."""
        kind: cython.uint = record & 3
        self.notices += 1
        if kind == ENTRY:
            self.updates += 1
            return self.shadow.follower.entry_written(record - kind)
        if kind == ALLOCATE:
            return self.shadow.announce(record >> 12)
        return self.shadow.release(record >> 12)
