"""Time as a ROM gives it: a counter that is read without an exit, and alarms.

The cycle counter is the processor's time-stamp counter. What else the ROM must know to
answer GetCycleFrequency and GetWallclockTime the monitor publishes in the queue header
(`vmi.queue.HeaderField`): how often it counts, what the wall clock said when it was 0,
and how to make nanoseconds of cycles: `cycles << shift`, times `multiplier`, and the
result without its low 32 bits.

SetAlarm rings `Doorbell.SET_ALARM` with the address of five words: flags, expiry (low,
high) and period (low, high). Sources: Linux arch/x86/include/asm/vmi_time.h and
arch/x86/kernel/vmiclock_32.c, 2.6.21 to 2.6.36.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

__all__ = [
    "ALARM_WORDS",
    "COUNTER_MASK",
    "AlarmFlag",
    "AlarmRequest",
    "CycleCounter",
    "Wiring",
    "alarm_of",
    "cycle_scale",
]

ALARM_WORDS = 5
"""32-bit words of what SetAlarm hands over."""
COUNTER_MASK = 0xFF
"""The bits of an alarm's flags that name the counter it goes by."""
_SECOND = 1_000_000_000
_MOST_SHIFT = 31


class CycleCounter(IntEnum):
    """What GetCycleCounter reads."""

    REAL = 0
    """Cycles that have passed."""
    AVAILABLE = 1
    """Of these, cycles in which the processor was the guest's."""
    STOLEN = 2
    """The others."""


class Wiring(IntEnum):
    """How an alarm reaches the guest."""

    IRQ0 = 0x00000
    """As interrupt request 0 of the PIC."""
    LVTT = 0x10000
    """As the timer of the processor's local APIC, through its LVT entry."""


class AlarmFlag(IntFlag):
    """Bits of an alarm's flags besides the counter and the wiring."""

    PERIODIC = 0x100
    """Again each period, from the expiry on; else once."""


_KNOWN = COUNTER_MASK | int(AlarmFlag.PERIODIC) | int(Wiring.LVTT)


@dataclass(frozen=True, slots=True)
class AlarmRequest:
    """What SetAlarm asks for; `expiry` and `period` in cycles, a period if it is periodic."""

    counter: CycleCounter
    wiring: Wiring
    expiry: int
    periodic: bool = False
    period: int = 0

    @classmethod
    def from_words(cls, words: Sequence[int]) -> "AlarmRequest":
        """Decode the `ALARM_WORDS` words; raises `ValueError` for flags that mean nothing."""
        flags, expiry_low, expiry_high, period_low, period_high = words
        counter, wiring = alarm_of(flags)
        periodic = bool(flags & AlarmFlag.PERIODIC)
        return cls(
            counter,
            wiring,
            expiry_low | expiry_high << 32,
            periodic,
            period_low | period_high << 32 if periodic else 0,
        )


def alarm_of(flags: int) -> tuple[CycleCounter, Wiring]:
    """Which alarm a flags word means; raises `ValueError` for one that there is not."""
    if flags & ~_KNOWN:
        raise ValueError(f"alarm flags {flags:#x}: bits {flags & ~_KNOWN:#x} mean nothing")
    counter = flags & COUNTER_MASK
    if counter not in {CycleCounter.REAL, CycleCounter.AVAILABLE}:
        raise ValueError(f"alarm flags {flags:#x}: no alarm goes by counter {counter}")
    return CycleCounter(counter), Wiring(flags & Wiring.LVTT)


def cycle_scale(frequency: int) -> tuple[int, int]:
    """(multiplier, shift) that make nanoseconds of cycles at `frequency` hertz.

    Exact to 32 bits. Raises `ValueError` for a frequency that no shift of 0 to 31 fits.
    """
    shift = 0
    while shift <= _MOST_SHIFT and frequency > 0:
        multiplier = (_SECOND << 32) // (frequency << shift)
        if 0 < multiplier < 1 << 32:
            return multiplier, shift
        shift += 1
    raise ValueError(f"{frequency} cycles a second cannot be scaled to nanoseconds")
