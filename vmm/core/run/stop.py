"""Why the engine came back to the run loop."""

from enum import IntEnum

__all__ = ["Stop"]


class Stop(IntEnum):
    """Set before the engine is asked to stop; `NONE` after it means it stopped by itself."""

    NONE = 0
    LIMIT = 1
    """The instruction limit."""
    DEADLINE = 2
    """Virtual time has reached the next timer."""
    HALTED = 3
    """HLT."""
    ERROR = 4
    """An exception is waiting in the vCPU."""
    INTERRUPT = 5
    """A pending interrupt can be taken now."""
    REQUEST = 6
    """A device or the user asked for it."""
    YIELD = 7
    """The CPU spins: another one may have its turn."""
    PORT = 9
    """A block accesses a port, which its ring may not be allowed to."""
    TRAP = 8
    """What the guest did is for somebody outside to decide (`Delivery.trap`)."""
    FORGET = 10
    """Translated code is to be dropped, with the table of known blocks or without
    (`BlockEntry.retranslate`)."""
