from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.core.timers import NEVER, Timers
from vmm.devices.clockfields import ClockFormat, fields_of, moment_of
from vmm.devices.cmos import firmware_cmos
from vmm.devices.lines import LooseLine
from vmm.devices.rtc import DEFAULT_START, Rtc

SECOND = 10**9
A, B, C, D = 10, 11, 12, 13
START = datetime(2008, 2, 28, 23, 59, 58, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(1980, 1, 1), datetime(2079, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


class Board:
    def __init__(self, start: datetime = START) -> None:
        self.now = 0
        self.timers = Timers()
        self.line = LooseLine()
        self.rtc = Rtc(self.timers, lambda: self.now, self.line, 64 << 20, start)

    def go(self, when: int) -> None:
        while self.timers.next_due() <= when:
            self.now = self.timers.next_due()
            self.timers.run_due(self.now)
        self.now = when

    def get(self, register: int) -> int:
        self.rtc.write(0x70, 1, register)
        return self.rtc.read(0x71, 1)

    def put(self, register: int, value: int) -> None:
        self.rtc.write(0x70, 1, register | 0x80)
        self.rtc.write(0x71, 1, value)

    def shown(self) -> list[int]:
        """Year, month, day, hours, minutes, seconds as the registers hold them."""
        return [self.get(register) for register in (9, 8, 7, 4, 2, 0)]


@pytest.fixture
def board() -> Board:
    return Board()


def test_bcd_and_a_leap_day(board: Board) -> None:
    assert board.shown() == [0x08, 0x02, 0x28, 0x23, 0x59, 0x58]
    assert board.get(6) == 5, "a Thursday"
    board.go(2 * SECOND - 1)
    assert board.shown() == [0x08, 0x02, 0x28, 0x23, 0x59, 0x59]
    board.go(2 * SECOND)
    assert board.shown() == [0x08, 0x02, 0x29, 0x00, 0x00, 0x00]
    assert board.get(6) == 6


def test_binary(board: Board) -> None:
    board.put(B, 0x06)
    assert board.shown() == [8, 2, 28, 23, 59, 58]


def test_twelve_hours(board: Board) -> None:
    board.put(B, 0x00)
    assert board.get(4) == 0x91, "11 in the afternoon"
    board.go(2 * SECOND)
    assert board.get(4) == 0x12, "midnight"


@given(hours=st.integers(0, 23), binary=st.booleans(), hours_24=st.booleans())
def test_hours_there_and_back(hours: int, *, binary: bool, hours_24: bool) -> None:
    shape = ClockFormat(binary=binary, hours_24=hours_24)
    assert shape.decode_hours(shape.encode_hours(hours)) == hours


@given(moment=MOMENTS)
def test_moments_there_and_back(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    assert moment_of(fields_of(moment), moment.year // 100) == moment


@given(start=MOMENTS, later=st.integers(0, 10 * 365 * 86400 * SECOND))
def test_time_is_the_start_plus_virtual_time(start: datetime, later: int) -> None:
    board = Board(start)
    board.now = later
    expected = start + timedelta(microseconds=later // 1000)
    shape = ClockFormat(binary=False, hours_24=True)
    assert board.shown() == [
        shape.encode(number)
        for number in (
            expected.year % 100,
            expected.month,
            expected.day,
            expected.hour,
            expected.minute,
            expected.second,
        )
    ]


def test_update_in_progress(board: Board) -> None:
    assert board.get(A) == 0x26
    board.go(SECOND - 2_228_001)
    assert not board.get(A) & 0x80
    board.go(SECOND - 2_228_000)
    assert board.get(A) & 0x80
    board.go(SECOND - 1)
    assert board.get(A) & 0x80
    board.go(SECOND)
    assert not board.get(A) & 0x80


def test_update_in_progress_cannot_be_set_and_rests_with_the_clock(board: Board) -> None:
    board.put(A, 0xA6)
    assert board.get(A) == 0x26
    board.put(B, 0x82)
    board.go(SECOND - 1)
    assert board.get(A) == 0x26


def test_setting_the_time(board: Board) -> None:
    board.go(SECOND // 2)
    board.put(B, 0x82)
    board.go(10 * SECOND)
    assert board.get(0) == 0x58, "it stands still"
    for register, value in zip(
        (9, 8, 7, 4, 2, 0), (0x10, 0x12, 0x31, 0x12, 0x34, 0x56), strict=True
    ):
        board.put(register, value)
    assert board.shown() == [0x10, 0x12, 0x31, 0x12, 0x34, 0x56]
    board.put(B, 0x02)
    board.go(11 * SECOND)
    assert board.shown() == [0x10, 0x12, 0x31, 0x12, 0x34, 0x57]
    assert board.rtc.time == datetime(2010, 12, 31, 12, 34, 57, tzinfo=UTC)


def test_setting_while_it_runs(board: Board) -> None:
    board.put(4, 0x07)
    assert board.shown()[3:] == [0x07, 0x59, 0x58]
    board.put(8, 0x13)
    assert board.get(8) == 0x02, "there is no thirteenth month"


def test_an_impossible_date_leaves_the_old_one(board: Board) -> None:
    board.put(B, 0x82)
    board.put(7, 0x31)
    assert board.get(7) == 0x31
    board.put(B, 0x02)
    assert board.get(7) == 0x28


def test_divider_reset_starts_half_a_second_before_an_update(board: Board) -> None:
    """As Linux sets the clock: SET, divider reset, store, SET off, divider on."""
    board.go(SECOND // 4)
    board.put(B, 0x82)
    board.put(A, 0x76)
    board.put(0, 0x10)
    board.put(B, 0x02)
    board.go(5 * SECOND)
    assert board.get(0) == 0x10
    board.go(5 * SECOND + 123)
    board.put(A, 0x26)
    assert board.get(0) == 0x10
    board.go(5 * SECOND + SECOND // 2 + 122)
    assert board.get(0) == 0x10
    board.go(5 * SECOND + SECOND // 2 + 123)
    assert board.get(0) == 0x11


def test_century(board: Board) -> None:
    assert board.get(0x32) == 0x20
    board.put(0x32, 0x19)
    board.put(9, 0x99)
    assert board.rtc.time.year == 1999


def test_fraction_of_the_start() -> None:
    board = Board(START + timedelta(microseconds=900_000))
    board.go(SECOND // 10)
    assert board.get(0) == 0x59


def test_periodic_interrupt(board: Board) -> None:
    board.put(B, 0x42)
    assert not board.line.level
    board.go(SECOND // 1024 + 1)
    assert board.line.level
    assert board.timers.next_due() == NEVER, "the line is up: nothing to wait for"
    assert board.get(C) == 0xC0
    assert not board.line.level
    assert board.get(C) == 0


@pytest.mark.parametrize(("rate", "hertz"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)])
def test_rates(board: Board, rate: int, hertz: int) -> None:
    board.put(A, 0x20 | rate)
    board.put(B, 0x42)
    count = 0
    while board.timers.next_due() <= SECOND:
        board.go(board.timers.next_due())
        count += board.get(C) >> 6 & 1
    assert count == hertz


def test_rate_0_is_none(board: Board) -> None:
    board.put(A, 0x20)
    board.put(B, 0x42)
    assert board.timers.next_due() == NEVER


def test_update_interrupt(board: Board) -> None:
    board.put(B, 0x12)
    board.go(SECOND - 1)
    assert not board.line.level
    board.go(SECOND)
    assert board.line.level
    assert board.get(C) & 0x90 == 0x90
    board.put(B, 0x92)
    assert board.get(B) == 0x82, "SET takes the enable away"
    assert board.timers.next_due() == NEVER


def test_flags_without_enables(board: Board) -> None:
    board.go(SECOND)
    assert board.get(C) == 0x50
    assert board.get(C) == 0
    board.go(2 * SECOND)
    board.put(B, 0x12)
    assert board.line.level, "enabling finds the flag already set"


def test_alarm(board: Board) -> None:
    for register, value in ((1, 0x05), (3, 0x00), (5, 0x00)):
        board.put(register, value)
    board.put(B, 0x22)
    assert board.timers.next_due() == 7 * SECOND
    board.go(7 * SECOND)
    assert board.line.level
    assert board.get(C) & 0xA0 == 0xA0
    assert board.timers.next_due() == (7 + 86400) * SECOND


@pytest.mark.parametrize(
    ("alarm", "seconds"),
    [
        ((0xFF, 0xFF, 0xFF), 1),
        ((0x00, 0xFF, 0xFF), 2),
        ((0x30, 0x00, 0xC0), 32),
        ((0x57, 0x59, 0x23), 86399),
        ((0x58, 0x59, 0x23), 86400),
    ],
)
def test_alarm_with_any(board: Board, alarm: tuple[int, int, int], seconds: int) -> None:
    for register, value in zip((1, 3, 5), alarm, strict=True):
        board.put(register, value)
    board.put(B, 0x22)
    assert board.timers.next_due() == seconds * SECOND


def test_impossible_alarm_never_comes(board: Board) -> None:
    board.put(5, 0x25)
    board.put(B, 0x22)
    assert board.timers.next_due() == NEVER


@given(
    alarm=st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 24)),
    start=MOMENTS,
)
def test_alarm_comes_when_the_clock_shows_it(alarm: tuple[int, int, int], start: datetime) -> None:
    start = start.replace(microsecond=0)
    board = Board(start)
    board.put(B, 0x06)
    wanted = []
    for register, value, top in zip((1, 3, 5), alarm, (60, 60, 24), strict=True):
        board.put(register, 0xFF if value == top else value)
        wanted.append(None if value == top else value)
    board.put(B, 0x26)
    after = board.timers.next_due() // SECOND
    for second in (*range(1, min(after, 100)), after):
        moment = start + timedelta(seconds=second)
        shown = (moment.second, moment.minute, moment.hour)
        match = all(w in {None, s} for w, s in zip(wanted, shown, strict=True))
        assert match == (second == after)


def test_memory_sizes_and_checksum(board: Board) -> None:
    assert board.get(0x15) | board.get(0x16) << 8 == 640
    assert board.get(0x17) | board.get(0x18) << 8 == 63 * 1024
    assert board.get(0x30) | board.get(0x31) << 8 == 63 * 1024
    assert board.get(0x34) | board.get(0x35) << 8 == 48 * 16
    assert board.get(0x2E) << 8 | board.get(0x2F) == sum(board.get(i) for i in range(0x10, 0x2E))
    assert board.get(D) == 0x80
    assert firmware_cmos(1 << 30, 20)[0x17:0x19] == b"\xff\xff"
    assert firmware_cmos(1 << 30, 20)[0x34:0x36] == (1008 * 16).to_bytes(2, "little")


def test_registers_that_cannot_be_written(board: Board) -> None:
    board.put(D, 0)
    board.put(C, 0xFF)
    assert (board.get(C), board.get(D)) == (0, 0x80)
    board.put(0x40, 0x77)
    assert board.get(0x40) == 0x77
    assert board.rtc.read(0x70, 1) == 0xFF


def test_default_start() -> None:
    timers, line = Timers(), LooseLine()
    assert Rtc(timers, lambda: 0, line, 64 << 20).time == DEFAULT_START
