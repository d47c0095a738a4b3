"""The guest's clock as the ROM gives it: a published time base, and alarms.

How an alarm reaches the guest is not decided here: whoever has a way, the PC its
interrupt request 0, a local APIC its timer entry, wires it (`GuestClock.wire`). An alarm
with a wiring that nobody serves is refused.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any

from vmi.clock import AlarmRequest, CycleCounter, Wiring, cycle_scale
from vmi.queue import HeaderField
from vmm.core.memory import GuestMemory
from vmm.core.saved import CUSTOM, U32, U64, Fields, Optional
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

    SAVED = Fields(
        {U32: "_version", U64: "_wallclock", Optional(U32): "_published", CUSTOM: "_armed"},
        wiring="_timers _now _wires _memory",
    )

    def __init__(
        self, timers: Timers, now: Callable[[], int], wallclock: int, memory: GuestMemory
    ) -> None:
        self._timers = timers
        self._now = now
        self._wallclock = wallclock
        self._memory = memory
        self._version = 0
        self._published: int | None = None
        self._wires: dict[Wiring, Callable[[], None]] = {}
        self._armed: dict[CycleCounter, _Armed] = {}

    def _save_armed(self) -> list[dict[str, Any]]:
        """For `vmm.core.saved`."""
        return [
            {
                "request": [int(number) for number in astuple(armed.request)],
                "due": armed.due,
                "timer": None
                if armed.timer is None
                else [self._timers.due(armed.timer), armed.timer],
            }
            for armed in self._armed.values()
        ]

    def _load_armed(self, value: list[dict[str, Any]]) -> None:
        """The same."""
        self._armed = {}
        for row in value:
            counter, wiring, expiry, periodic, period = row["request"]
            request = AlarmRequest(
                CycleCounter(counter), Wiring(wiring), int(expiry), bool(periodic), int(period)
            )
            self._check(request)
            if type(row["due"]) is not int:
                raise TypeError(f"an alarm due at {row['due']!r}")
            timer = row["timer"]
            if timer is not None:
                self._timers.restore(timer, partial(self._go_off, request.counter))
            self._armed[request.counter] = _Armed(
                request, row["due"], None if timer is None else timer[1]
            )

    def wire(self, wiring: Wiring, pulse: Callable[[], None]) -> None:
        """Alarms wired so call `pulse` when they go off."""
        self._wires[wiring] = pulse

    # ---- what is published

    def publish(self, header: int) -> None:
        """Write the time base into the queue header at guest-physical `header`."""
        self._published = header
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
            self._memory.write32(self._published + offset, value)

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
        self._check(request)
        self.cancel(request.counter)
        now = self._now()
        ahead = (request.expiry - now) & _CYCLE_MASK
        self._arm(request, now + ahead if ahead < _HALF else now - (-ahead & _CYCLE_MASK))

    def _check(self, request: AlarmRequest) -> None:
        if request.wiring not in self._wires:
            raise ValueError(f"nothing here serves alarms wired to {request.wiring.name}")
        if request.periodic and request.period < LEAST_PERIOD:
            raise ValueError(
                f"alarm period of {request.period} cycles, expected at least {LEAST_PERIOD}"
            )

    def cancel(self, counter: CycleCounter) -> bool:
        """Disarm; answers whether it was set. An interrupt that is on its way still comes."""
        armed = self._armed.pop(counter, None)
        if armed is not None and armed.timer is not None:
            self._timers.cancel(armed.timer)
        return armed is not None

    def _arm(self, request: AlarmRequest, due: int) -> None:
        timer = None
        if due < NEVER:
            timer = self._timers.at(max(due, self._now()), partial(self._go_off, request.counter))
        self._armed[request.counter] = _Armed(request, due, timer)

    def _go_off(self, counter: CycleCounter) -> None:
        armed = self._armed.pop(counter)
        request = armed.request
        if request.periodic:
            missed = max(0, self._now() - armed.due) // request.period
            self._arm(request, armed.due + (missed + 1) * request.period)
        self._wires[request.wiring]()
