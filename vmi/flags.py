"""Flag words that VMI calls carry (VMI 2.0 proposal, part 4; Linux asm/vmi.h)."""

from enum import IntEnum, IntFlag

__all__ = ["LazyMode", "PageFlag", "RebootKind", "TlbFlush", "UpdateFlag"]


class PageFlag(IntFlag):
    """What AllocatePage and ReleasePage say of a page-table page."""

    PT = 0x01
    PD = 0x02
    PDP = 0x04
    PML4 = 0x08
    PAE = 0x10
    CLONE = 0x20
    ZEROED = 0x40


class UpdateFlag(IntFlag):
    """What SetPxE and UpdatePxE say of an entry.

    With `CURRENT_AS`, bits 31-12 of the flags word hold the virtual address that
    the entry maps.
    """

    PT = 0x01
    PD = 0x02
    PDP = 0x04
    PML4 = 0x08
    CURRENT_AS = 0x10
    DEFER = 0x20


class LazyMode(IntEnum):
    """The argument of SetLazyMode."""

    NONE = 0
    MMU = 1
    CPU = 2


class TlbFlush(IntFlag):
    """The argument of FlushTLB."""

    TLB = 1
    GLOBAL = 2


class RebootKind(IntEnum):
    """The argument of Reboot."""

    SOFT = 0
    HARD = 1
