"""What kinds of ROM there are: their names alone, without what builds them."""

from enum import StrEnum

__all__ = ["DEFAULT_CALLS", "Calls", "Flavour", "Visibility"]


class Flavour(StrEnum):
    """What the ROM does with a call."""

    IDENTITY = "identity"
    """The native equivalent, no writable data; works on any machine."""
    BATCHING = "batching"
    """Queues page-table updates for a monitor that answers the doorbell."""


class Calls(StrEnum):
    """Which calls the ROM takes over."""

    ALL = "all"
    NEEDED = "needed"
    """Those whose native instruction costs an exit; the rest stay inline."""


DEFAULT_CALLS = {Flavour.IDENTITY: Calls.ALL, Flavour.BATCHING: Calls.NEEDED}
"""The control takes over everything; the other what it can gain by."""


class Visibility(StrEnum):
    """When the batching flavour tells of a change to a present page-table entry."""

    TLB = "tlb"
    """When the guest invalidates, loads CR3, or faults, as a processor with a TLB would."""
    STRICT = "strict"
    """When the call returns, unless the update may be deferred: the interface's letter."""
