"""The 8254 interval timer of a PC (Intel 8254 data sheet, 231164).

Nothing ticks: every count and output follows from virtual time. Only channel 0's
next rising edge is put on a timer, for it is IRQ 0.
"""

from collections.abc import Callable

from vmi.address import Port
from vmm.core.saved import PARTS, Fields, Timer
from vmm.core.timers import Timers
from vmm.devices.bytewide import ByteWideDevice
from vmm.devices.lines import InterruptLine
from vmm.devices.pitchannel import SHARED_CHANNEL, PitChannel

__all__ = ["PIT_FREQUENCY", "PIT_PORTS", "PIT_PORT_COUNT", "Pit", "ns_at_clock"]

PIT_PORTS = Port(0x40)
PIT_PORT_COUNT = 4
_CONTROL = Port(0x43)

PIT_FREQUENCY = 1_193_182
"""Clock pulses per second: a twelfth of 14.31818 MHz."""
_SECOND = 1_000_000_000
_REFRESH_CONTROL = 0x54
_REFRESH_COUNT = 18
"""Channel 1 as firmware leaves it: a memory refresh each 15 microseconds."""

_READ_BACK = 3
_READ_BACK_NO_COUNT = 0x20
_READ_BACK_NO_STATUS = 0x10


def ns_at_clock(clock: int) -> int:
    """The virtual time, in nanoseconds, of a clock pulse counted from time 0."""
    return -(-clock * _SECOND // PIT_FREQUENCY)


class Pit(ByteWideDevice):
    """Three channels; 0 drives `line`, 1 is memory refresh, 2 the speaker.

    `now` answers virtual time in nanoseconds. Between two rising edges IRQ 0 stays
    high, also through the low half of the square wave: nothing can tell but a
    request that waited for half a period, which is kept here.
    """

    SAVED = Fields(
        {Timer("_edge"): "_timer", PARTS: "_channels"},
        wiring="_timers _now _line _is_shared _refresh",
    )

    def __init__(self, timers: Timers, now: Callable[[], int], line: InterruptLine) -> None:
        self._timers = timers
        self._now = now
        self._line = line
        self._timer: int | None = None
        self._channels = [PitChannel(), PitChannel(), PitChannel()]
        self._is_shared = False
        self._refresh = self._channels[1]
        self._refresh.control(_REFRESH_CONTROL, 0)
        self._refresh.write(_REFRESH_COUNT, 0)
        self.set_speaker_gate(high=False)

    shared_size = 3 * SHARED_CHANNEL.size
    """A port filter sees the three channels, one behind the other."""

    def share(self, view: memoryview) -> None:
        """Keep what a port filter sees in `view` from now on."""
        self._is_shared = True
        for i, channel in enumerate(self._channels):
            channel.share(view[i * SHARED_CHANNEL.size : (i + 1) * SHARED_CHANNEL.size])

    def _publish(self) -> None:
        if self._is_shared:
            for channel in self._channels:
                channel.publish()

    def clock(self) -> int:
        """Clock pulses since time 0."""
        return self._now() * PIT_FREQUENCY // _SECOND

    @property
    def speaker_gate(self) -> bool:
        """Channel 2's GATE input."""
        return self._channels[2].gate

    def set_speaker_gate(self, *, high: bool) -> None:
        """Drive channel 2's GATE input (bit 0 of port 0x61)."""
        self._channels[2].set_gate(self.clock(), high=high)
        self._publish()

    @property
    def speaker_output(self) -> bool:
        """Channel 2's OUT pin (bit 5 of port 0x61)."""
        return self._channels[2].output(self.clock())

    @property
    def refresh_toggle(self) -> bool:
        """Changes with each memory refresh (bit 4 of port 0x61)."""
        return bool(self._refresh.periods(self.clock()) & 1)

    def read_byte(self, port: int) -> int:
        """A count or a latched status; the control register cannot be read."""
        if port == _CONTROL:
            return 0xFF
        value = self._channels[port & 3].read(self.clock())
        self._publish()
        return value

    def write_byte(self, port: int, value: int) -> None:
        """A count or a control word."""
        clock = self.clock()
        if port != _CONTROL:
            self._channels[port & 3].write(value, clock)
            if port == PIT_PORTS:
                self._rearm(clock)
        elif value >> 6 == _READ_BACK:
            self._read_back(value, clock)
        else:
            self._channels[value >> 6].control(value, clock)
            if value >> 6 == 0 and value & 0x30:
                self._rearm(clock)
        self._publish()

    def _read_back(self, command: int, clock: int) -> None:
        for number, channel in enumerate(self._channels):
            if command >> (number + 1) & 1:
                if not command & _READ_BACK_NO_STATUS:
                    channel.latch_status(clock)
                if not command & _READ_BACK_NO_COUNT:
                    channel.latch_count(clock)

    def _rearm(self, clock: int) -> None:
        """Channel 0 was programmed: drive IRQ 0 as its output now is, wait for its next edge."""
        if self._timer is not None:
            self._timers.cancel(self._timer)
        self._line.level = self._channels[0].output(clock)
        self._wait(clock)

    def _wait(self, clock: int) -> None:
        rise = self._channels[0].next_rise(clock)
        self._timer = None if rise is None else self._timers.at(ns_at_clock(rise), self._edge)

    def _edge(self) -> None:
        """OUT has risen; it had been low before, for one clock pulse at least."""
        self._line.level = False
        self._line.level = True
        self._wait(self.clock())
