"""The timer against a reference that ticks clock by clock, and against the data sheet's figures."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.core.timers import NEVER, Timers
from vmm.devices.pit import PIT_FREQUENCY, Pit, ns_at_clock
from vmm.devices.pitchannel import PitChannel
from vmm.devices.port61 import CONTROL_PORT_B, ControlPortB

CONTROL = 0x43


class RecordedLine:
    """Counts the rising edges of a wire."""

    def __init__(self) -> None:
        self.rises = 0
        self._level = False

    @property
    def level(self) -> bool:
        return self._level

    @level.setter
    def level(self, level: bool) -> None:
        self.rises += level and not self._level
        self._level = level


@dataclass
class Bench:
    """A timer chip with its time under control; times are clock pulses."""

    time_ns: int = 0
    timers: Timers = field(default_factory=Timers)
    line: RecordedLine = field(default_factory=RecordedLine)
    pit: Pit = field(init=False)

    def __post_init__(self) -> None:
        self.pit = Pit(self.timers, lambda: self.time_ns, self.line)

    def go(self, clock: int) -> None:
        """Advance, timer by timer."""
        target = ns_at_clock(clock)
        while self.timers.next_due() <= target:
            self.time_ns = self.timers.next_due()
            self.timers.run_due(self.time_ns)
        self.time_ns = target

    def program(self, channel: int, mode: int, count: int) -> None:
        self.pit.write(CONTROL, 1, channel << 6 | 0x30 | mode << 1)
        self.pit.write(0x40 + channel, 1, count & 0xFF)
        self.pit.write(0x40 + channel, 1, count >> 8 & 0xFF)

    def count(self, channel: int) -> int:
        self.pit.write(CONTROL, 1, channel << 6)
        return self.pit.read(0x40 + channel, 1) | self.pit.read(0x40 + channel, 1) << 8


@pytest.fixture
def bench() -> Bench:
    return Bench()


def waveform(mode: int, count: int, length: int) -> list[tuple[int, bool]]:
    """What the data sheet draws: count and output after each pulse since the count was taken."""
    shown = []
    value, high = count, True
    if mode == 3:
        value = count & ~1
    for pulse in range(length):
        if mode in {0, 1, 4, 5}:
            value = (count - pulse) % 0x10000
            high = {0: pulse >= count, 1: pulse >= count}.get(mode, pulse != count)
        elif mode == 2 and pulse:
            value = count if value == 1 else value - 1
        elif mode == 3 and pulse:
            # A half ends one pulse after the count expires; odd counts make the high half longer.
            last = 0 if high and count & 1 else 2
            if value == last:
                value, high = count & ~1, not high
            else:
                value -= 2
        shown.append((value, value != 1 if mode == 2 else high))
    return shown


def test_the_data_sheets_figures() -> None:
    assert waveform(2, 3, 7) == [
        (3, True),
        (2, True),
        (1, False),
        (3, True),
        (2, True),
        (1, False),
        (3, True),
    ]
    assert [v for v, _ in waveform(3, 4, 8)] == [4, 2, 4, 2, 4, 2, 4, 2]
    assert waveform(3, 5, 6) == [
        (4, True),
        (2, True),
        (0, True),
        (4, False),
        (2, False),
        (4, True),
    ]


@given(
    mode=st.sampled_from([0, 2, 3, 4]),
    count=st.integers(2, 40) | st.sampled_from([65535, 65536]),
    begin=st.integers(0, 1000),
)
def test_count_and_output_follow_the_data_sheet(mode: int, count: int, begin: int) -> None:
    channel = PitChannel()
    channel.control(0x30 | mode << 1, begin)
    channel.write(count & 0xFF, begin)
    channel.write(count >> 8 & 0xFF, begin)
    for pulse, (value, output) in enumerate(waveform(mode, count, 130)):
        clock = begin + 1 + pulse
        channel.latch_count(clock)
        assert channel.read(clock) | channel.read(clock) << 8 == value & 0xFFFF
        assert channel.output(clock) == output


@given(mode=st.sampled_from([1, 5]), count=st.integers(1, 40))
def test_triggered_modes_start_with_the_gate(mode: int, count: int) -> None:
    channel = PitChannel()
    channel.control(0x10 | mode << 1, 0)
    channel.write(count, 0)
    assert all(channel.output(clock) for clock in range(100))
    channel.set_gate(100, high=False)
    channel.set_gate(200, high=True)
    assert [channel.output(201 + pulse) for pulse in range(60)] == [
        output for _, output in waveform(mode, count, 60)
    ]
    channel.set_gate(300, high=False)
    channel.set_gate(301, high=True)
    assert [channel.output(302 + pulse) for pulse in range(60)] == [
        output for _, output in waveform(mode, count, 60)
    ]


@given(
    mode=st.sampled_from([0, 2, 3, 4]),
    counts=st.lists(st.integers(2, 50), min_size=1, max_size=4),
    gaps=st.lists(st.integers(1, 120), min_size=4, max_size=4),
)
def test_next_rise_is_where_the_output_rises(mode: int, counts: list[int], gaps: list[int]) -> None:
    """Also while new counts wait for the end of a period."""
    channel = PitChannel()
    channel.control(0x10 | mode << 1, 0)
    clock = 0
    for count, gap in zip(counts, gaps, strict=False):
        channel.write(count, clock)
        end = clock + gap
        foretold = []
        levels = []
        for moment in range(clock, end):
            foretold.append(channel.next_rise(moment))
            levels.append(channel.output(moment))
        for moment in range(clock, end):
            later = range(moment + 1, end)
            rises = [t for t in later if levels[t - clock] and not levels[t - clock - 1]]
            expected = foretold[moment - clock]
            if rises:
                assert expected == rises[0]
            else:
                assert expected is None or expected >= end
        clock = end


def test_a_new_count_waits_for_the_end_of_the_period() -> None:
    channel = PitChannel()
    channel.control(0x14, 0)
    channel.write(10, 0)
    channel.write(4, 5)
    assert [clock for clock in range(1, 30) if not channel.output(clock)] == [10, 14, 18, 22, 26]


def test_a_new_count_of_the_square_wave_waits_for_half_a_period() -> None:
    channel = PitChannel()
    channel.control(0x16, 0)
    channel.write(10, 0)
    channel.write(4, 3)  # during the high half, clocks 1-5
    assert [channel.output(clock) for clock in range(1, 14)] == (
        [True] * 5 + [False] * 2 + [True] * 2 + [False] * 2 + [True] * 2
    )


def test_gate_holds_mode_0() -> None:
    channel = PitChannel()
    channel.control(0x10, 0)
    channel.write(10, 0)
    channel.set_gate(4, high=False)  # three of ten are counted
    assert channel.read(50) == 7
    assert not channel.output(50)
    channel.set_gate(50, high=True)
    assert not channel.output(56)
    assert channel.output(57)


def test_low_gate_makes_a_rate_generator_high_and_restarts_it() -> None:
    channel = PitChannel()
    channel.control(0x16, 0)
    channel.write(10, 0)
    assert not channel.output(8)
    channel.set_gate(8, high=False)
    assert channel.output(8)
    assert channel.output(99)
    channel.set_gate(100, high=True)
    assert [channel.output(101 + i) for i in range(10)] == [True] * 5 + [False] * 5


def test_bcd() -> None:
    channel = PitChannel()
    channel.control(0x31, 0)
    channel.write(0x00, 0)
    channel.write(0x10, 0)  # 1000
    channel.latch_count(2)
    assert (channel.read(2), channel.read(2)) == (0x99, 0x09)
    channel.latch_count(1002)
    assert (channel.read(1002), channel.read(1002)) == (0x99, 0x99)
    channel.control(0x31, 0)
    channel.write(0, 0)
    channel.write(0, 0)
    assert not channel.output(10_000)
    assert channel.output(10_001), "0 stands for 10000"


@pytest.mark.parametrize(("access", "expected"), [(1, [0x33, 0x33]), (2, [0x12, 0x12])])
def test_one_byte_access(access: int, expected: list[int]) -> None:
    channel = PitChannel()
    channel.control(0x30, 0)
    channel.write(0x34, 0)
    channel.write(0x12, 0)
    channel._access = access
    assert [channel.read(2), channel.read(2)] == expected


def test_high_byte_only_count() -> None:
    channel = PitChannel()
    channel.control(0x20, 0)
    channel.write(0x01, 0)
    assert not channel.output(256)
    assert channel.output(257)


def test_low_then_high_reads_alternate_and_a_latch_stays_until_read() -> None:
    channel = PitChannel()
    channel.control(0x30, 0)
    channel.write(0x00, 0)
    channel.write(0x20, 0)
    assert [channel.read(1), channel.read(1), channel.read(2)] == [0x00, 0x20, 0xFF]
    channel.read(2)
    channel.latch_count(0x11)
    channel.latch_count(0x999)
    assert [channel.read(0x999), channel.read(0x999)] == [0xF0, 0x1F]


def test_first_byte_in_mode_0_stops_and_lowers() -> None:
    channel = PitChannel()
    channel.control(0x30, 0)
    channel.write(2, 0)
    channel.write(0, 0)
    assert channel.output(3)
    channel.write(9, 4)
    assert not channel.output(5)
    channel.write(0, 20)
    assert not channel.output(29)
    assert channel.output(30)


def test_read_back_of_status(bench: Bench) -> None:
    bench.pit.write(CONTROL, 1, 0x34)
    bench.pit.write(CONTROL, 1, 0xE2)
    assert bench.pit.read(0x40, 1) == 0xF4, "output high, no count yet"
    bench.pit.write(0x40, 1, 100)
    bench.pit.write(0x40, 1, 0)
    bench.go(1)
    bench.pit.write(CONTROL, 1, 0xC2)
    assert [bench.pit.read(0x40, 1) for _ in range(3)] == [0xB4, 100, 0], "status comes first"
    bench.pit.write(0x40, 1, 50)
    bench.pit.write(0x40, 1, 0)
    bench.pit.write(CONTROL, 1, 0xE2)
    assert bench.pit.read(0x40, 1) == 0xF4, "the new count waits"
    bench.go(102)
    bench.pit.write(CONTROL, 1, 0xE2)
    bench.go(103)
    bench.pit.write(CONTROL, 1, 0xE2)
    assert bench.pit.read(0x40, 1) == 0xB4, "the first latch counts"


def test_read_back_of_several_counts(bench: Bench) -> None:
    bench.program(0, 2, 1000)
    bench.pit.set_speaker_gate(high=True)
    bench.program(2, 0, 2000)
    bench.go(11)
    bench.pit.write(CONTROL, 1, 0xDA)
    bench.go(500)
    assert bench.pit.read(0x40, 1) | bench.pit.read(0x40, 1) << 8 == 990
    assert bench.pit.read(0x42, 1) | bench.pit.read(0x42, 1) << 8 == 1990


def test_control_register_cannot_be_read(bench: Bench) -> None:
    assert bench.pit.read(CONTROL, 1) == 0xFF


def test_nothing_is_due_before_a_count_is_written(bench: Bench) -> None:
    assert bench.timers.next_due() == NEVER
    bench.pit.write(CONTROL, 1, 0x34)
    assert bench.timers.next_due() == NEVER


@pytest.mark.parametrize("mode", [2, 3])
def test_periodic_interrupt(bench: Bench, mode: int) -> None:
    bench.program(0, mode, 11932)
    before = bench.line.rises
    bench.go(11932)
    assert bench.line.rises == before
    bench.go(11933)
    assert bench.line.rises == before + 1
    bench.go(11932 * 100 + 1)
    assert bench.line.rises == before + 100


def test_periods_do_not_drift(bench: Bench) -> None:
    bench.program(0, 2, 1193)
    before = bench.line.rises
    bench.go(PIT_FREQUENCY)
    assert bench.line.rises - before == (PIT_FREQUENCY - 1) // 1193


def test_late_service_merges_edges(bench: Bench) -> None:
    bench.program(0, 2, 1000)
    before = bench.line.rises
    bench.time_ns = ns_at_clock(10_500)
    bench.timers.run_due(bench.time_ns)
    assert bench.line.rises == before + 1
    assert bench.timers.next_due() == ns_at_clock(11_001)


@pytest.mark.parametrize(("mode", "rise"), [(0, 1001), (4, 1002)])
def test_one_shot(bench: Bench, mode: int, rise: int) -> None:
    bench.program(0, mode, 1000)
    before = bench.line.rises
    bench.go(rise - 1)
    assert bench.line.rises == before
    bench.go(rise)
    assert bench.line.rises == before + 1
    bench.go(1_000_000)
    assert bench.line.rises == before + 1
    assert bench.timers.next_due() == NEVER


def test_one_shot_set_anew_by_its_count_alone(bench: Bench) -> None:
    """As the clock event device of Linux does for each event."""
    bench.pit.write(CONTROL, 1, 0x38)
    before = bench.line.rises
    for step in range(1, 6):
        bench.pit.write(0x40, 1, 0xE8)
        bench.pit.write(0x40, 1, 0x03)
        bench.go(2000 * step)
        assert bench.line.rises == before + step
    bench.pit.write(0x40, 1, 0xE8)
    bench.pit.write(0x40, 1, 0x03)
    bench.go(2000 * 5 + 500)
    bench.pit.write(0x40, 1, 0xE8)  # a new count before the old one has expired
    bench.pit.write(0x40, 1, 0x03)
    bench.go(2000 * 5 + 1400)
    assert bench.line.rises == before + 5
    bench.go(2000 * 5 + 1502)
    assert bench.line.rises == before + 6


def test_shutdown_by_mode_0(bench: Bench) -> None:
    bench.program(0, 2, 1000)
    bench.go(5000)
    bench.pit.write(CONTROL, 1, 0x30)
    assert not bench.line.level
    assert bench.timers.next_due() == NEVER


def test_latching_does_not_disturb_the_interrupt(bench: Bench) -> None:
    bench.program(0, 2, 1000)
    before = bench.line.rises
    for clock in range(0, 10_001, 50):
        bench.go(clock)
        bench.count(0)
    assert bench.line.rises == before + 9


@given(count=st.integers(1, 65536), clock=st.integers(1, 10**9))
def test_channel_0_count_at_any_time(count: int, clock: int) -> None:
    bench = Bench()
    bench.program(0, 2, count)
    bench.time_ns = ns_at_clock(clock)
    assert bench.count(0) == (count - (clock - 1) % count) & 0xFFFF


def test_calibration_through_port_61(bench: Bench) -> None:
    """Linux: gate on, speaker off, mode 0, wait for bit 5."""
    port: Callable[[], int]
    control = ControlPortB(bench.pit)
    control.write(CONTROL_PORT_B, 1, 0x01)
    bench.program(2, 0, 59659)
    port = lambda: control.read(CONTROL_PORT_B, 1)  # noqa: E731
    assert port() & 0x2F == 0x01
    bench.go(59659)
    assert not port() & 0x20
    bench.go(59660)
    assert port() & 0x20


def test_port_61_gate_and_bits(bench: Bench) -> None:
    control = ControlPortB(bench.pit)
    assert not bench.pit.speaker_gate
    control.write(CONTROL_PORT_B, 1, 0xFF)
    assert bench.pit.speaker_gate
    assert control.read(CONTROL_PORT_B, 1) & 0xCF == 0x0F
    assert control.read(CONTROL_PORT_B, 2) >> 8 == 0xFF


def test_refresh_bit_toggles_every_15_microseconds(bench: Bench) -> None:
    control = ControlPortB(bench.pit)
    seen = []
    for clock in range(1, 18 * 6 + 1):
        bench.go(clock)
        seen.append(control.read(CONTROL_PORT_B, 1) >> 4 & 1)
    assert seen == [0] * 18 + [1] * 18 + [0] * 18 + [1] * 18 + [0] * 18 + [1] * 18


@given(clock=st.integers(0, 10**15))
def test_time_of_a_clock_pulse(clock: int) -> None:
    when = ns_at_clock(clock)
    assert when * PIT_FREQUENCY // 10**9 == clock
    assert clock == 0 or (when - 1) * PIT_FREQUENCY // 10**9 == clock - 1
