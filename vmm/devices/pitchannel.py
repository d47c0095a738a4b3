"""One channel of the 8254 interval timer, as a function of the clock (Intel 231164).

Times are clock pulses counted from time 0. A count written between pulses T and T+1
is in the counter from T+1 on, as the data sheet has it.
"""

import struct

from vmm.core.saved import (
    ARRAY,
    FLAG,
    U8,
    U32,
    VIRTUAL_TIME,
    BadState,
    Fields,
    Numbers,
    Optional,
    Signed,
)

__all__ = ["SHARED_CHANNEL", "PitChannel"]

SHARED_CHANNEL = struct.Struct("<4BIQ")
"""What a port filter sees of a channel: may it answer, mode, access, is the second of two
bytes next (the filter's to change as well), the count, and when the counter held it."""
_SECOND_BYTE = 3

_LOW, _HIGH, _LOW_THEN_HIGH = 1, 2, 3
"""How a count is accessed: bits 5-4 of the control word."""
_LAST_MODE, _MOST_COUNT = 5, 0x10000
_PERIODIC = frozenset({2, 3})
_TRIGGERED = frozenset({1, 5})
"""Modes in which a rising GATE starts the count."""
_HELD_BY_GATE = frozenset({0, 4})
"""Modes in which a low GATE stops the count where it is."""
_STATUS_OUTPUT = 0x80
_STATUS_NULL = 0x40


class PitChannel:
    """A counter with its control word, latches and GATE input (high to begin with)."""

    SAVED = Fields(
        {
            FLAG: "gate _bcd",
            U8: "_mode _access _control_bits",
            U32: "_count",
            VIRTUAL_TIME: "_elapsed",
            Optional(Signed(60)): "_start _next_due",
            Optional(U32): "_next_count",
            Optional(U8): "_low_byte _status",
            Numbers(8, most=2): "_latched",
            ARRAY: "_shared",
        },
    )

    def __init__(self) -> None:
        self.gate = True
        self._mode = 0
        self._access = _LOW_THEN_HIGH
        self._bcd = False
        self._control_bits = 0
        self._count = 0
        """The count in use, 1 to 65536; 0 until one was written."""
        self._start: int | None = None
        """When the counter held the whole count; none while it does not run."""
        self._elapsed = 0
        """Clock pulses counted when GATE stopped the counter."""
        self._next_count: int | None = None
        """A count that waits for the end of the period, or for a trigger."""
        self._next_due: int | None = None
        """When the waiting count is taken up; none if only a trigger will do it."""
        self._low_byte: int | None = None
        self._latched: list[int] = []
        self._status: int | None = None
        self._shared = memoryview(bytearray(SHARED_CHANNEL.size))

    def _check_saved(self) -> None:
        """A counter that can count."""
        counts = (self._count, self._next_count or 0)
        if (
            self._mode > _LAST_MODE
            or not _LOW <= self._access <= _LOW_THEN_HIGH
            or max(counts) > _MOST_COUNT
            or (self._start is not None and not self._count)
        ):
            raise BadState(f"a channel in mode {self._mode} with the counts {counts}")

    def share(self, view: memoryview) -> None:
        """Keep what a port filter sees in `view` from now on."""
        view[:] = self._shared
        self._shared = view
        self.publish()

    def publish(self) -> None:
        """Say how things stand, for a filter to answer plain reads of the count.

        A read that does more than to take the next of two bytes is the device's alone.
        """
        plain = (
            self._start is not None
            and self._start >= 0
            and self._count
            and not self._bcd
            and not self._latched
            and self._status is None
            and self._next_count is None
        )
        SHARED_CHANNEL.pack_into(
            self._shared,
            0,
            bool(plain),
            self._mode,
            self._access,
            self._read_high,
            self._count,
            self._start if plain and self._start is not None else 0,
        )

    @property
    def _read_high(self) -> bool:
        """Is the second of two bytes next? A filter that takes bytes changes this."""
        return bool(self._shared[_SECOND_BYTE])

    @_read_high.setter
    def _read_high(self, high: bool) -> None:
        self._shared[_SECOND_BYTE] = high

    @property
    def _modulus(self) -> int:
        return 10_000 if self._bcd else 0x10000

    def control(self, word: int, clock: int) -> None:
        """A control word: latch the count, or choose access, mode and number base."""
        access = word >> 4 & 3
        if access == 0:
            self.latch_count(clock)
            return
        mode = word >> 1 & 7
        self._mode = mode - 4 if mode > 5 else mode
        self._access = access
        self._bcd = bool(word & 1)
        self._control_bits = word & 0x3F
        self._count = 0
        self._start = None
        self._elapsed = 0
        self._next_count = None
        self._next_due = None
        self._low_byte = None
        self._read_high = False
        self._latched = []
        self._status = None

    def write(self, value: int, clock: int) -> None:
        """A byte of a count."""
        if self._access == _LOW:
            self._load(value, clock)
        elif self._access == _HIGH:
            self._load(value << 8, clock)
        elif self._low_byte is None:
            self._low_byte = value
            if self._mode == 0:
                # The first byte stops the count and makes OUT low; the second starts it anew.
                self._start = None
                self._count = 0
        else:
            low, self._low_byte = self._low_byte, None
            self._load(value << 8 | low, clock)

    def _load(self, raw: int, clock: int) -> None:
        count = (_from_bcd(raw) if self._bcd else raw) or self._modulus
        self._advance(clock)
        begun = self._start is None or clock >= self._start
        if self._mode in _TRIGGERED or (self._mode in _PERIODIC and self._count and begun):
            self._next_count = count
            self._next_due = self._end_of_part(clock) if self._mode in _PERIODIC else None
            return
        self._count = count
        self._elapsed = 0
        self._start = clock + 1 if self.gate else None

    def set_gate(self, clock: int, *, high: bool) -> None:
        """Drive the GATE input."""
        if high == self.gate:
            return
        self._advance(clock)
        self.gate = high
        if self._mode not in _TRIGGERED and not high:
            self._elapsed = self._counted(clock)
            self._start = None
            self._next_due = None
        elif self._mode in _HELD_BY_GATE:
            if self._count:
                self._start = clock - self._elapsed
        elif high:
            self._trigger(clock)

    def _trigger(self, clock: int) -> None:
        """GATE has risen: the counter takes its count with the next clock pulse."""
        if self._next_count is not None:
            self._count, self._next_count = self._next_count, None
        if self._count:
            self._start = clock + 1

    def _counted(self, clock: int) -> int:
        """Clock pulses since the counter held the whole count."""
        return self._elapsed if self._start is None else max(0, clock - self._start)

    def _end_of_part(self, clock: int) -> int | None:
        """When the period of mode 2, or the half period of mode 3, is over."""
        if self._start is None:
            return None
        begin = clock - (clock - self._start) % self._count
        middle = begin + (self._count + 1) // 2
        return middle if self._mode == 3 and clock < middle else begin + self._count

    def _advance(self, clock: int) -> None:
        """Take up the waiting count if its time has come."""
        if self._next_due is None or self._next_count is None or clock < self._next_due:
            return
        high_half = (self._next_count + 1) // 2 if self._next_is_low_half() else 0
        self._start = self._next_due - high_half
        self._count = self._next_count
        self._next_count = self._next_due = None

    def _next_is_low_half(self) -> bool:
        """Is the waiting count taken up in the middle of a period?"""
        if self._next_due is None or self._start is None:
            return False
        return (self._next_due - self._start) % self._count != 0

    def _value(self, clock: int) -> int:
        """The counter as it is read, in binary or BCD."""
        self._advance(clock)
        if not self._count:
            return 0
        counted = self._counted(clock)
        if self._mode == 2:
            value = self._count - counted % self._count
        elif self._mode == 3:
            # Twice round per period in steps of two; an odd count is made even first.
            phase, half = counted % self._count, (self._count + 1) // 2
            value = (self._count & ~1) - 2 * (phase % half)
        else:
            value = self._count - counted
        value %= self._modulus
        return _to_bcd(value) if self._bcd else value

    def output(self, clock: int) -> bool:
        """The OUT pin."""
        self._advance(clock)
        counted = self._counted(clock)
        if self._mode == 0:
            return self._count != 0 and counted >= self._count
        if self._start is None or clock < self._start:
            return True
        if self._mode == 1:
            return counted >= self._count
        if self._mode == 2:
            return counted % self._count != self._count - 1
        if self._mode == 3:
            return counted % self._count < (self._count + 1) // 2
        return counted != self._count

    def next_rise(self, clock: int) -> int | None:
        """The first clock pulse after `clock` with which OUT goes from low to high."""
        self._advance(clock)
        if self._start is None:
            return None
        if self._mode in _PERIODIC:
            if self._next_due is not None and self._next_count is not None:
                return self._next_due + (self._next_count // 2 if self._next_is_low_half() else 0)
            return self._start + (max(0, clock - self._start) // self._count + 1) * self._count
        # Modes 0 and 1 rise when the count is done, 4 and 5 after a strobe of one pulse.
        rise = self._start + self._count + (1 if self._mode > 3 else 0)
        return rise if rise > clock else None

    def periods(self, clock: int) -> int:
        """How many whole counts have passed."""
        self._advance(clock)
        return self._counted(clock) // self._count if self._count else 0

    def latch_count(self, clock: int) -> None:
        """Keep the count for the next read; a second latch before it changes nothing."""
        if not self._latched:
            value = self._value(clock)
            low, high = value & 0xFF, value >> 8
            self._latched = {_LOW: [low], _HIGH: [high]}.get(self._access, [low, high])

    def latch_status(self, clock: int) -> None:
        """Keep the status byte for the next read, before a latched count."""
        if self._status is None:
            output = _STATUS_OUTPUT if self.output(clock) else 0
            waiting = (
                not self._count
                or self._next_count is not None
                or (self._start is not None and clock < self._start)
            )
            self._status = output | (_STATUS_NULL if waiting else 0) | self._control_bits

    def read(self, clock: int) -> int:
        """A byte: latched status, then latched count, then the count as it runs."""
        if self._status is not None:
            status, self._status = self._status, None
            return status
        if self._latched:
            return self._latched.pop(0)
        value = self._value(clock)
        if self._access == _LOW_THEN_HIGH:
            self._read_high = not self._read_high
            high = not self._read_high
        else:
            high = self._access == _HIGH
        return value >> 8 if high else value & 0xFF


def _from_bcd(value: int) -> int:
    return sum((value >> (4 * i) & 0xF) * 10**i for i in range(4))


def _to_bcd(value: int) -> int:
    return sum((value // 10**i % 10) << (4 * i) for i in range(4))
