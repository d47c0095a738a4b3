"""Everything that brings the processor out of guest code, and the reasons users see.

An `Event` is what happened; whether it is an exit is the policy's business. What
the policy's processor would not have exited on is an *engine event*: a trap that
only this engine needs, listed apart and never counted as an exit.
"""

from enum import IntEnum, StrEnum

__all__ = ["REASON_OF", "Event", "Reason", "Weight"]


class Reason(StrEnum):
    """Exit reasons. The names are stable: reports, JSON and scripts rely on them."""

    PTE_WRITE = "pte_write"
    """A store to a write-protected page table: decoded, emulated, carried to the shadow."""
    SHADOW_FILL = "shadow_fill"
    """A hidden page fault: the guest's tables allow the access, the shadow lagged behind."""
    PAGE_FAULT = "page_fault"
    """A true guest fault that exits because #PF is intercepted."""
    CR_READ = "cr_read"
    CR_WRITE = "cr_write"
    INVLPG = "invlpg"
    DESCRIPTOR_TABLE = "descriptor_table"
    """A load or store of GDTR, IDTR, LDTR or TR."""
    HLT = "hlt"
    CPUID = "cpuid"
    MSR = "msr"
    IO = "io"
    """A port access; its place carries port, size and direction."""
    MMIO = "mmio"
    """An access to a physical address where no RAM is, or a write to a ROM."""
    REFLECT = "reflect"
    """A port access that was sent to the ROM's handler; its place is that of `io`."""
    HYPERCALL = "hypercall"
    """The ROM rang the doorbell; its place carries the function."""
    INTERRUPT = "interrupt"
    """The running guest was interrupted to receive a device interrupt."""
    INTERRUPT_WINDOW = "interrupt_window"
    """A device interrupt had to wait until the guest could take it."""
    DR_ACCESS = "dr_access"
    DIRTY_LOG = "dirty_log"
    """The first store to a page of a memory slot that logs them, since the log was taken."""
    OTHER = "other"
    """RDTSC, WBINVD and what else a policy may intercept."""


class Weight(StrEnum):
    """Who serves an exit."""

    LIGHT = "light"
    """The core: the kernel side."""
    HEAVY = "heavy"
    """A device: the userspace side."""


class Event(IntEnum):
    """What happened. The numbers index counters and are not stable."""

    PTE_WRITE = 0
    SHADOW_FILL = 1
    PAGE_FAULT = 2
    CR_READ = 3
    CR_WRITE = 4
    INVLPG = 5
    DESCRIPTOR_TABLE = 6
    HLT = 7
    CPUID = 8
    MSR = 9
    IO = 10
    MMIO = 11
    HYPERCALL = 12
    INTERRUPT = 13
    INTERRUPT_WINDOW = 14
    DR_ACCESS = 15
    RDTSC = 16
    WBINVD = 17
    NX_FETCH = 18
    """First fetch from a page: the shadow maps pages no-execute until then, which
    only this engine needs (stores to executable pages are slow in it)."""
    BYPASSED_FAULT = 19
    """A true fault of ring 3 that an error-code mask lets through (VT-x)."""
    SOFTWARE_INTERRUPT = 20
    EXCEPTION = 21
    """A guest exception other than #PF, delivered by the engine's need."""
    MASKED_CR_READ = 22
    """A read of CR0 or CR4, which VT-x answers from the read shadow."""
    CODE_WRITE = 23
    """A store to a page that other CPUs may have translated: only this engine, whose
    CPUs do not see each other's stores to code, must know of it."""
    PAUSE = 24
    """PAUSE on a machine with several CPUs: who spins long enough loses its turn."""
    CURTAIN = 25
    """A load of CR3 with the value in VT-x's CR3-target list: the ROM lowers the curtain."""
    DIRTY_LOG = 26
    """A store that only the log of a memory slot had to see: one that would have faulted
    all the same counts as what it is otherwise."""
    REFLECT = 27


REASON_OF: dict[Event, Reason] = {
    Event.PTE_WRITE: Reason.PTE_WRITE,
    Event.SHADOW_FILL: Reason.SHADOW_FILL,
    Event.PAGE_FAULT: Reason.PAGE_FAULT,
    Event.CR_READ: Reason.CR_READ,
    Event.CR_WRITE: Reason.CR_WRITE,
    Event.INVLPG: Reason.INVLPG,
    Event.DESCRIPTOR_TABLE: Reason.DESCRIPTOR_TABLE,
    Event.HLT: Reason.HLT,
    Event.CPUID: Reason.CPUID,
    Event.MSR: Reason.MSR,
    Event.IO: Reason.IO,
    Event.MMIO: Reason.MMIO,
    Event.REFLECT: Reason.REFLECT,
    Event.HYPERCALL: Reason.HYPERCALL,
    Event.INTERRUPT: Reason.INTERRUPT,
    Event.INTERRUPT_WINDOW: Reason.INTERRUPT_WINDOW,
    Event.DR_ACCESS: Reason.DR_ACCESS,
    Event.RDTSC: Reason.OTHER,
    Event.WBINVD: Reason.OTHER,
    Event.NX_FETCH: Reason.OTHER,
    Event.BYPASSED_FAULT: Reason.PAGE_FAULT,
    Event.SOFTWARE_INTERRUPT: Reason.OTHER,
    Event.EXCEPTION: Reason.OTHER,
    Event.MASKED_CR_READ: Reason.CR_READ,
    Event.CODE_WRITE: Reason.OTHER,
    Event.PAUSE: Reason.OTHER,
    Event.CURTAIN: Reason.CR_WRITE,
    Event.DIRTY_LOG: Reason.DIRTY_LOG,
}
"""The reason under which an event counts where the policy makes it an exit."""
