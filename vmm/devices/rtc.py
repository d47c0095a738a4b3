"""The real-time clock of a PC (Motorola MC146818 data sheet, 1984).

The time is a fixed start plus virtual time. Registers change at the end of the
update cycle, on whole seconds; update-in-progress is up for the 2228 microseconds
before, as with a 32.768 kHz crystal.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from vmi.address import Port
from vmm.core.saved import ARRAY, CUSTOM, U8, U32, VIRTUAL_TIME, BadState, Fields, Timer
from vmm.core.timers import Timers
from vmm.devices.bytewide import ByteWideDevice
from vmm.devices.clockfields import (
    DAY,
    HOURS,
    MINUTES,
    MONTH,
    SECONDS,
    WEEKDAY,
    YEAR,
    ClockFormat,
    fields_of,
    moment_of,
)
from vmm.devices.cmos import CENTURY, CMOS_SIZE, firmware_cmos
from vmm.devices.lines import InterruptLine

__all__ = ["DEFAULT_START", "RTC_PORTS", "RTC_PORT_COUNT", "Rtc"]

RTC_PORTS = Port(0x70)
RTC_PORT_COUNT = 2

DEFAULT_START = datetime(2008, 1, 1, 0, 0, 0, tzinfo=UTC)
"""When the machine is switched on, unless asked otherwise."""

_SECOND = 1_000_000_000
_UPDATE = 2_228_000
"""Nanoseconds that update-in-progress is up: tBUC and tUC."""
_CRYSTAL = 32_768

_TIME = frozenset({SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR})
_A, _B, _C, _D = 10, 11, 12, 13

_UIP, _RATE = 0x80, 0x0F
_DIVIDER_NORMAL, _DIVIDER_RESET = 0x20, 0x60
_FIRMWARE_RATE = 6
"""1024 Hz, as firmware leaves it."""
_SET, _PERIODIC, _ALARM, _UPDATED = 0x80, 0x40, 0x20, 0x10
_SOURCES = _PERIODIC | _ALARM | _UPDATED
_BINARY, _HOURS_24 = 0x04, 0x02
_INTERRUPT = 0x80
_VALID = 0x80
_ANY = 0xC0
"""An alarm register with both top bits set matches every value."""
_ALARM_STEPS = 24 + 3 * 60
"""Steps of an hour, a minute or a second within which any alarm is found."""


class Rtc(ByteWideDevice):
    """`line` is IRQ 8; `now` answers virtual time in nanoseconds.

    `memory` is the machine's RAM in bytes, which the CMOS tells as firmware does.
    The day of the week follows from the date; storing another one is ignored, and
    so is a date that does not exist.
    """

    SAVED = Fields(
        {
            Timer("_wake"): "_timer",
            U8: "_index _flags",
            ARRAY: "_cmos",
            U32: "_phase",
            CUSTOM: "_base _held",
            VIRTUAL_TIME: "_seen",
        },
        wiring="_timers _now _line",
    )

    def __init__(
        self,
        timers: Timers,
        now: Callable[[], int],
        line: InterruptLine,
        memory: int,
        start: datetime = DEFAULT_START,
    ) -> None:
        self._timers = timers
        self._now = now
        self._line = line
        self._timer: int | None = None
        self._index = 0
        self._cmos = firmware_cmos(memory, start.year // 100)
        self._cmos[_A] = _DIVIDER_NORMAL | _FIRMWARE_RATE
        self._cmos[_B] = _HOURS_24
        self._flags = 0
        self._phase = start.microsecond * 1000
        """Nanoseconds into the second at virtual time 0."""
        self._base = start.replace(microsecond=0)
        """What the clock showed in second 0."""
        self._held: dict[int, int] | None = None
        """The numbers in the time registers while the clock is stopped."""
        self._seen = 0
        """Virtual time up to which events are in the flags."""

    def _check_saved(self) -> None:
        """A register that there is, and a phase within a second."""
        if self._index >= CMOS_SIZE or self._phase >= _SECOND:
            raise BadState(f"register {self._index}, phase {self._phase}")

    def _save_base(self) -> str:
        """For `vmm.core.saved`: ISO 8601."""
        return self._base.isoformat()

    def _load_base(self, value: str) -> None:
        """The same."""
        moment = datetime.fromisoformat(value)
        if moment.tzinfo != UTC:
            raise ValueError(f"{value}: expected UTC")
        self._base = moment

    def _save_held(self) -> list[list[int]] | None:
        """For `vmm.core.saved`: register and number."""
        return None if self._held is None else [list(pair) for pair in self._held.items()]

    def _load_held(self, value: list[list[int]] | None) -> None:
        """The same."""
        held = None if value is None else {int(key): int(number) for key, number in value}
        if held is not None and set(held) != _TIME:
            raise ValueError(f"registers {sorted(held)}: expected {sorted(_TIME)}")
        self._held = held

    @property
    def time(self) -> datetime:
        """What the clock would show now if it was not stopped, in whole seconds."""
        return self._base + timedelta(seconds=self._second(self._now()))

    def _second(self, when: int) -> int:
        return (when + self._phase) // _SECOND

    def read_byte(self, port: int) -> int:
        """The selected register; the index cannot be read."""
        if port != RTC_PORTS + 1:
            return 0xFF
        index = self._index
        if index in _TIME:
            fields = self._held or fields_of(self.time)
            return self._format.encode_field(index, fields[index])
        if index == _A:
            return self._cmos[_A] | (_UIP if self._updating() else 0)
        if index == _C:
            return self._take_flags()
        return _VALID if index == _D else self._cmos[index]

    def write_byte(self, port: int, value: int) -> None:
        """Choose a register (bit 7, the NMI mask, has nothing to mask) or store to it."""
        if port == RTC_PORTS:
            self._index = value & 0x7F
        elif port == RTC_PORTS + 1:
            self._collect()
            self._store(self._index, value)
            self._rearm()

    def _store(self, index: int, value: int) -> None:
        if index in _TIME:
            fields = self._held or fields_of(self.time)
            fields[index] = self._format.decode_field(index, value)
            if self._held is None:
                self._set_time(fields)
        elif index == _A:
            was_reset = self._resetting
            self._control(_A, value & ~_UIP)
            if was_reset and not self._resetting:
                # Out of the divider's reset the first update comes after half a second.
                shown = self._second(self._now())
                self._phase = (_SECOND // 2 - self._now()) % _SECOND
                self._base += timedelta(seconds=shown - self._second(self._now()))
        elif index == _B:
            # Stopping the clock also disables the interrupt at the end of its updates.
            self._control(_B, value & ~_UPDATED if value & _SET else value)
        elif index not in {_C, _D}:
            self._cmos[index] = value

    def _control(self, index: int, value: int) -> None:
        """Store to register A or B, either of which can stop the clock."""
        was_running = self._running
        self._cmos[index] = value
        if was_running and not self._running:
            self._held = fields_of(self.time)
        elif self._running and self._held is not None:
            self._set_time(self._held)
            self._held = None

    def _set_time(self, fields: dict[int, int]) -> None:
        century = ClockFormat(binary=False, hours_24=True).decode(self._cmos[CENTURY])
        moment = moment_of(fields, century)
        if moment is not None:
            self._base = moment - timedelta(seconds=self._second(self._now()))

    @property
    def _format(self) -> ClockFormat:
        mode = self._cmos[_B]
        return ClockFormat(binary=bool(mode & _BINARY), hours_24=bool(mode & _HOURS_24))

    @property
    def _resetting(self) -> bool:
        return self._cmos[_A] & _DIVIDER_RESET == _DIVIDER_RESET

    @property
    def _running(self) -> bool:
        return not self._cmos[_B] & _SET and not self._resetting

    def _updating(self) -> bool:
        return self._running and (self._now() + self._phase) % _SECOND >= _SECOND - _UPDATE

    def _take_flags(self) -> int:
        self._collect()
        flags, self._flags = self._flags, 0
        asserted = flags & self._cmos[_B] & _SOURCES
        self._rearm()
        return flags | (_INTERRUPT if asserted else 0)

    def _collect(self) -> None:
        """Set the flags of what has happened since the last look, enabled or not."""
        before, now = self._seen, self._now()
        self._seen = now
        for source, when in self._events(before).items():
            if when <= now:
                self._flags |= source

    def _events(self, after: int) -> dict[int, int]:
        """When each source has its next event after a virtual time."""
        events = {}
        period = self._period
        if period:
            tick = after * _CRYSTAL // (_SECOND * period) + 1
            events[_PERIODIC] = -(-tick * _SECOND * period // _CRYSTAL)
        if self._running:
            second = self._second(after)
            events[_UPDATED] = (second + 1) * _SECOND - self._phase
            alarm = self._next_alarm(second)
            if alarm is not None:
                events[_ALARM] = alarm * _SECOND - self._phase
        return events

    @property
    def _period(self) -> int:
        """Crystal oscillations between two periodic interrupts; 0 is none."""
        rate = self._cmos[_A] & _RATE
        if rate == 0 or self._resetting:
            return 0
        return 1 << (rate + 6 if rate < 3 else rate - 1)

    def _next_alarm(self, after: int) -> int | None:
        """The first matching second behind `after`, none if no time of day matches."""
        hours, minutes, seconds = (self._alarm(register) for register in (HOURS, MINUTES, SECONDS))
        moment = self._base + timedelta(seconds=after + 1)
        for _ in range(_ALARM_STEPS):
            if hours not in {None, moment.hour}:
                moment = moment.replace(minute=0, second=0) + timedelta(hours=1)
            elif minutes not in {None, moment.minute}:
                moment = moment.replace(second=0) + timedelta(minutes=1)
            elif seconds not in {None, moment.second}:
                moment += timedelta(seconds=1)
            else:
                return int((moment - self._base).total_seconds())
        return None

    def _alarm(self, register: int) -> int | None:
        """What the alarm for a time register waits for; its register is the next one."""
        raw = self._cmos[register + 1]
        return None if raw & _ANY == _ANY else self._format.decode_field(register, raw)

    def _rearm(self) -> None:
        """Drive the line; while it is low, wait for the next event that would raise it."""
        if self._timer is not None:
            self._timers.cancel(self._timer)
            self._timer = None
        enabled = self._cmos[_B] & _SOURCES
        self._line.level = bool(self._flags & enabled)
        if self._flags & enabled:
            return
        due = [when for source, when in self._events(self._seen).items() if source & enabled]
        if due:
            self._timer = self._timers.at(min(due), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._collect()
        self._rearm()
