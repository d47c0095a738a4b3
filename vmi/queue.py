"""The batch queue: how the ROM tells the monitor what changed, many updates at once.

The queue is an extension of this toolkit; VMI itself leaves it to the ROM. It
lives in the ROM's writable data and starts with a header of 32-bit words,
followed by `capacity` records of 32 bits each.

The protocol is safe against an interrupt handler that queues and flushes in the
middle of an operation, with no `cli`:

1. the guest stores the new entry in its table, so that it can read it back;
2. `xadd` on `count` reserves a slot;
3. the record is written to the slot.

A record is never zero. A drain applies all records below `count`, clears their
slots and sets `count` to 0. A slot that is reserved but still zero is *in
flight*: its owner was interrupted between 2 and 3. The drain then leaves `count`
just above it, with `DRAINED` in the applied slots below, so that the next drain
finds the record once its owner has gone on. A reservation at or beyond
`capacity` has no slot: its owner rings `Doorbell.QUEUE_FULL` with the record.

A ROM for several processors has a *home* for each: a header with records of its own, and
what else is true of one processor alone, all of one shape and at equal distances
(`HomeField`). The first one is the header that `ATTACH` names; published words and
`DOWNGRADE` are looked for in it alone, whichever processor asks: a change that one has
queued concerns the translations of all.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from vmi.address import PAGE_MASK, GuestPhysical
from vmi.flags import PageFlag, UpdateFlag

__all__ = [
    "APIC_MIRRORED",
    "CURTAIN_END",
    "DEFAULT_CAPACITY",
    "DRAINED",
    "FAULT_PAGE_MASK",
    "FAULT_PAGE_VALID",
    "HEADER_SIZE",
    "HOMES",
    "MAGIC",
    "MAX_CAPACITY",
    "NO_FAULT_PAGE",
    "RECORD_SIZE",
    "Ability",
    "HeaderField",
    "HomeField",
    "Record",
    "RecordKind",
]

MAGIC = int.from_bytes(b"VMIq", "little")
"""First word of a queue header."""

RECORD_SIZE = 4
DRAINED = 4
"""A slot below one in flight whose record was applied; of kind 0, so it means nothing."""
DEFAULT_CAPACITY = 128
"""Measured on a Linux boot: enough that full queues are rare (a few per thousand flushes)."""
MAX_CAPACITY = 1024
HOMES = 8
"""As many as a machine has processors, at most."""


class HeaderField(IntEnum):
    """Byte offsets of the header's 32-bit words."""

    MAGIC = 0x00
    REGION_SIZE = 0x04
    """Bytes, from the header on, that the ROM wants writable."""
    CAPACITY = 0x08
    """Number of record slots."""
    COUNT = 0x0C
    """Slots reserved; may exceed the capacity for a moment."""
    DOWNGRADE = 0x10
    """Non-zero: a queued record, in whichever home, may take a permission or a mapping away."""
    FAULT_PAGE = 0x14
    """Written by the monitor: the page that the last write fault on a present page came
    from, as `FAULT_PAGE_VALID` | its virtual address, or `NO_FAULT_PAGE`. While it stands
    here, no translation of that page is cached, neither in the shadow nor in the TLB: so
    changing its entry takes nothing away."""
    FREQUENCY = 0x18
    """Published at attach, two words: cycles of the time-stamp counter a second."""
    WALLCLOCK = 0x20
    """Published, two words: nanoseconds since 1970 when the time-stamp counter was 0."""
    MULTIPLIER = 0x28
    """Published: what makes nanoseconds of cycles (vmi/clock.py)."""
    SHIFT = 0x2C
    """Published: the other half of it."""
    WALLCLOCK_VERSION = 0x30
    """Changes whenever the monitor publishes another wall clock, which it does only while
    this processor is outside the guest: equal before and after reading says that what
    was read belongs together."""
    WALLCLOCK_UPDATED = 0x34
    """The monitor writes 1 when the wall clock has moved against the cycle counter;
    WallclockUpdated reads and clears it."""
    ABILITIES = 0x38
    """Written by the ROM before it attaches: `Ability` bits."""
    CURTAIN = 0x3C
    """Written by the monitor: while the curtain is up, the value of CR3 that lowers it, else
    0. A ROM that can lower it takes this word, leaves 0, and loads it, after each entry
    that it stores and queues; see `Ability.CURTAIN`."""
    APIC_EOI = 0x40
    """The monitor writes 1 when the interrupt that it delivers may be ended by clearing this
    word: it came by an edge, and nothing else waits for its end. Should that change the
    monitor clears the word itself, and the end needs a ring."""
    APIC_REGISTERS = 0x80
    """Written by the monitor, 64 words: what is in the registers of the local APIC, by their
    offsets divided by 16. Only those that change by nothing but the guest's stores are
    kept up to date (`APIC_MIRRORED`)."""
    RECORDS = 0x180
    """Where the records start."""


HEADER_SIZE = HeaderField.RECORDS

APIC_MIRRORED = (
    0x20, 0x30, 0x80, 0xD0, 0xE0, 0xF0, 0x280, 0x300, 0x310,
    0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3E0,
)  # fmt: skip
"""Offsets of the APIC registers that `HeaderField.APIC_REGISTERS` holds: ID, version, TPR,
LDR, DFR, SVR, ESR, ICR, the LVT entries, the timer's initial count and its divider."""


class Ability(IntFlag):
    """What a ROM can do that not every ROM can."""

    CURTAIN = 1
    """It lowers the *curtain*: page tables that map nothing below `CURTAIN_END`, which the
    processor loads without an exit (VT-x, the CR3-target list). While it is down no
    translation below that address is cached, and the first access there exits, which
    drains the queue and lifts it. So while it is up the shadow knows of every entry, and
    faults below need no exit for the queue's sake."""
    HOMES = 2
    """Behind the records stand the words of `HomeField`."""


class HomeField(IntEnum):
    """Byte offsets from the end of a header's records, of a ROM with `Ability.HOMES`."""

    COUNT = 0x00
    """How many homes there are; in the first one."""
    STRIDE = 0x04
    """Bytes from one home to the next; in the first one."""
    KEY = 0x08
    """Written by the ROM: by what it knows the processor whose home this is, without an exit.
    The sum of three: the GDT's base, its limit in the upper half of a word, and in the lower
    half the task register. 0 is nobody's; the monitor writes it when the processor gets
    INIT."""


CURTAIN_END = 0xC0000000
"""Three quarters of the linear space: what one directory pointer maps is not hidden."""


class RecordKind(IntEnum):
    """Low two bits of a record."""

    ENTRY = 1
    """The page-table entry at this guest-physical address changed."""
    ALLOCATE = 2
    """The page is a page table from now on; the ROM announces every store to it."""
    RELEASE = 3
    """The page is ordinary memory again."""


_NO_FLAGS = PageFlag(0)


FAULT_PAGE_VALID = UpdateFlag.PT | UpdateFlag.CURRENT_AS
"""What the flags of an update say besides the page, if it is of that page's own entry: one
exclusive-or compares all."""
FAULT_PAGE_MASK = (
    0xFFFFF000
    | UpdateFlag.PT
    | UpdateFlag.PD
    | UpdateFlag.PDP
    | UpdateFlag.PML4
    | UpdateFlag.CURRENT_AS
)
"""The bits of an update's flags that are compared; a directory's entry maps more than the page."""
NO_FAULT_PAGE = FAULT_PAGE_MASK & PAGE_MASK
"""An entry of all levels at once: no update is of one."""


@dataclass(frozen=True, slots=True)
class Record:
    """One queued notice.

    `address` is a multiple of 4 for `ENTRY` and of the page size otherwise;
    `flags` are carried by `ALLOCATE` and `RELEASE` only.
    """

    kind: RecordKind
    address: GuestPhysical
    flags: PageFlag = _NO_FLAGS

    def encode(self) -> int:
        """The record as the 32-bit word in the queue."""
        return self.address | (self.flags << 2) | self.kind

    @classmethod
    def decode(cls, word: int) -> "Record":
        """The record in a 32-bit word; raises `ValueError` when its kind is 0."""
        kind = word & 3
        if not kind:
            raise ValueError(f"queue record {word:#010x} has no kind")
        if kind == RecordKind.ENTRY:
            return cls(RecordKind.ENTRY, GuestPhysical(word & ~3))
        return cls(
            RecordKind(kind), GuestPhysical(word & ~PAGE_MASK), PageFlag((word & PAGE_MASK) >> 2)
        )
