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
    NO_FAULT_PAGE,
    Ability,
    HeaderField,
    RecordKind,
)
from vmm.core.memory import GuestMemory
from vmm.core.paging import GuestPaging
from vmm.core.queueregion import QueueRefused, check_region
from vmm.core.shadow import ShadowMmu

COUNT_OFFSET = cython.declare(cython.uint, HeaderField.COUNT)
DOWNGRADE_OFFSET = cython.declare(cython.uint, HeaderField.DOWNGRADE)
RECORDS_OFFSET = cython.declare(cython.uint, HeaderField.RECORDS)
ENTRY = cython.declare(cython.uint, RecordKind.ENTRY)
ALLOCATE = cython.declare(cython.uint, RecordKind.ALLOCATE)
FAULT_PAGE_OFFSET = cython.declare(cython.uint, HeaderField.FAULT_PAGE)
NO_FAULT = cython.declare(cython.uint, NO_FAULT_PAGE)
FAULT_VALID = cython.declare(cython.uint, FAULT_PAGE_VALID)
NO_PAGE = cython.declare(cython.uint, 0xFFFFFFFF)
DRAINED_SLOT = cython.declare(cython.uint, DRAINED)


@cython.final
@cython.cclass
class BatchQueue:
    """The queue of one CPU.

    What one CPU queued concerns all, since a store to memory does: every drain and every
    look at a fault page goes through the queues of the `peers` as well. A ROM may have
    one queue for all CPUs; it is attached by one of them, and nothing is published in it
    that is true of one CPU alone.

    `offered` are the `Feature` bits that attaching grants. After a run `updates`
    counts the entries that were announced through the queue, `notices` all records,
    `drains` the drains that found any, `largest` the most records in one of them.
    """

    def __init__(self, memory: GuestMemory, paging: GuestPaging, shadow: ShadowMmu, offered):
        self.memory = memory
        self.paging = paging
        self.shadow = shadow
        self.offered = offered
        self.header = self.capacity = 0
        self.image_start = self.image_end = 0
        self.attached = False
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

        Makes the region writable. Raises `QueueRefused`, with nothing changed, when
        the region is not page-aligned room inside the ROM image or the header is
        not one.
        """
        region = check_region(
            self.memory,
            lambda virtual: int(self.paging.translate(virtual, False, False)),
            address,
            (int(self.image_start), int(self.image_end)),
        )
        self.memory.set_protected(region.first_frame, region.frames, False)
        self.header = region.header
        self.capacity = region.capacity
        self.attached = True
        self.hang_curtain(address)

    def hang_curtain(self, address):
        """Grant the curtain where it is offered and the ROM can lower it.

        A ROM below the curtain's end would hide itself. With several CPUs one of them
        could fault on what another has changed.
        """
        able = self.memory.read32(self.header + HeaderField.ABILITIES)
        if (
            self.offered & Feature.CURTAIN
            and able & Ability.CURTAIN
            and address >= CURTAIN_END
            and not self.peers
        ):
            self.shadow.curtain.hang(self.header + HeaderField.CURTAIN)
        else:
            self.offered &= ~int(Feature.CURTAIN)

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
        memory.write32(self.header + DOWNGRADE_OFFSET, 0)
        if applied:
            self.check_fault_page()
            self.drains += 1
            self.largest = max(self.largest, applied)
        self.shadow.flush_if_stale()
        return applied

    def publish_fault_page(self, address: cython.uint) -> cython.int:
        """Tell the ROM that no translation of this page, which the latest walk found, is cached."""
        if self.is_this_cpus_alone():
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

    def is_this_cpus_alone(self) -> cython.bint:
        """Does no other CPU use this queue for want of one of its own?"""
        if not self.attached:
            return False
        if self.peers:
            for queue in self.peers:
                peer: BatchQueue = queue
                if not peer.attached:
                    return False
        return True

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
