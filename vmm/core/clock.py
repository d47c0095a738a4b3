"""The guest's clock as the ROM gives it: a published time base, and alarms.

How an alarm reaches the guest is not decided here: whoever has a way, the PC its
interrupt request 0, a local APIC its timer entry, wires it (`GuestClock.wire`). An alarm
with a wiring that nobody serves is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from vmi.clock import AlarmRequest, CycleCounter, Wiring, cycle_scale
from vmi.queue import HeaderField
from vmm.core.memory import GuestMemory
from vmm.core.timers import NEVER, Timers

__all__ = ["CYCLES_PER_SECOND", "LEAST_PERIOD", "GuestClock"]

CYCLES_PER_SECOND = 1_000_000_000
"""RDTSC reads virtual time, in nanoseconds."""
LEAST_PERIOD = 1_000
"""Cycles. A shorter period would leave the guest no time between two alarms."""
_WORD = 0xFFFFFFFF
_CYCLE_MASK = (1 << 64) - 1
_HALF = 1 << 63


@dataclass(slots=True)
class _Armed:
    request: AlarmRequest
    due: int
    timer: int | None


class GuestClock:
    """The clock of one processor. It has one alarm for each counter; a new one replaces it.

    `now` answers the processor's cycle counter, which is virtual time in nanoseconds;
    `wallclock` is nanoseconds since 1970 at counter 0.
    """

    def __init__(self, timers: Timers, now: Callable[[], int], wallclock: int) -> None:
        self._timers = timers
        self._now = now
        self._wallclock = wallclock
        self._version = 0
        self._published: tuple[GuestMemory, int] | None = None
        self._wires: dict[Wiring, Callable[[], None]] = {}
        self._armed: dict[CycleCounter, _Armed] = {}

    def wire(self, wiring: Wiring, pulse: Callable[[], None]) -> None:
        """Alarms wired so call `pulse` when they go off."""
        self._wires[wiring] = pulse

    # ---- what is published

    def publish(self, memory: GuestMemory, header: int) -> None:
        """Write the time base into the queue header at guest-physical `header`."""
        self._published = (memory, header)
        multiplier, shift = cycle_scale(CYCLES_PER_SECOND)
        self._store_pair(HeaderField.FREQUENCY, CYCLES_PER_SECOND)
        self._store(HeaderField.MULTIPLIER, multiplier)
        self._store(HeaderField.SHIFT, shift)
        self._store_wallclock()

    def set_wallclock(self, wallclock: int) -> None:
        """The wall clock has been set: nanoseconds since 1970 at counter 0.

        Only while the processor is outside the guest.
        """
        self._wallclock = wallclock
        self._version = (self._version + 1) & _WORD
        if self._published is not None:
            self._store_wallclock()
            self._store(HeaderField.WALLCLOCK_UPDATED, 1)

    def _store_wallclock(self) -> None:
        self._store_pair(HeaderField.WALLCLOCK, self._wallclock)
        self._store(HeaderField.WALLCLOCK_VERSION, self._version)

    def _store_pair(self, field: HeaderField, value: int) -> None:
        self._store(field, value & _WORD)
        self._store(field + 4, value >> 32 & _WORD)

    def _store(self, offset: int, value: int) -> None:
        if self._published is not None:
            memory, header = self._published
            memory.write32(header + offset, value)

    # ---- alarms

    @property
    def armed(self) -> dict[CycleCounter, AlarmRequest]:
        """What is set; the expiry is when it goes off next."""
        return {
            counter: replace(armed.request, expiry=armed.due)
            for counter, armed in self._armed.items()
        }

    def set(self, request: AlarmRequest) -> None:
        """Arm an alarm; one that is due already goes off at once.

        The expiry lies before or behind now, whichever is nearer on the 64-bit circle.
        Raises `ValueError`, with nothing changed, for what cannot be served.
        """
        if request.wiring not in self._wires:
            raise ValueError(f"nothing here serves alarms wired to {request.wiring.name}")
        if request.periodic and request.period < LEAST_PERIOD:
            raise ValueError(
                f"alarm period of {request.period} cycles, expected at least {LEAST_PERIOD}"
            )
        self.cancel(request.counter)
        now = self._now()
        ahead = (request.expiry - now) & _CYCLE_MASK
        self._arm(request, now + ahead if ahead < _HALF else now - (-ahead & _CYCLE_MASK))

    def cancel(self, counter: CycleCounter) -> bool:
        """Disarm; answers whether it was set. An interrupt that is on its way still comes."""
        armed = self._armed.pop(counter, None)
        if armed is not None and armed.timer is not None:
            self._timers.cancel(armed.timer)
        return armed is not None

    def _arm(self, request: AlarmRequest, due: int) -> None:
        timer = None
        if due < NEVER:
            timer = self._timers.at(max(due, self._now()), lambda: self._go_off(request.counter))
        self._armed[request.counter] = _Armed(request, due, timer)

    def _go_off(self, counter: CycleCounter) -> None:
        armed = self._armed.pop(counter)
        request = armed.request
        if request.periodic:
            missed = max(0, self._now() - armed.due) // request.period
            self._arm(request, armed.due + (missed + 1) * request.period)
        self._wires[request.wiring]()
