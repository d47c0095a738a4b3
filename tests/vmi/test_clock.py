"""Alarm flags, and cycles made nanoseconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmi.clock import AlarmRequest, CycleCounter, Wiring, alarm_of, cycle_scale


def test_words_of_a_periodic_alarm() -> None:
    request = AlarmRequest.from_words((0x10101, 2, 1, 4, 3))
    expected = (CycleCounter.AVAILABLE, Wiring.LVTT, 0x1_0000_0002, True, 0x3_0000_0004)
    assert request == AlarmRequest(*expected)


def test_an_alarm_once_has_no_period() -> None:
    assert AlarmRequest.from_words((0, 7, 0, 4, 3)) == AlarmRequest(
        CycleCounter.REAL, Wiring.IRQ0, 7
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (2, "alarm flags 0x2: no alarm goes by counter 2"),
        (0xFF, "no alarm goes by counter 255"),
        (0x200, "bits 0x200 mean nothing"),
        (0xFFFFFFFF, "bits 0xfffefe00 mean nothing"),
    ],
)
def test_flags_that_mean_nothing(flags: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        alarm_of(flags)


@given(st.integers(1_000_000, 10_000_000_000), st.integers(0, 1 << 32))
def test_scaled_cycles_are_right_to_32_bits(frequency: int, cycles: int) -> None:
    multiplier, shift = cycle_scale(frequency)
    assert 0 < multiplier < 1 << 32
    exact = cycles * 1_000_000_000 // frequency
    scaled = (cycles << shift) * multiplier >> 32
    assert 0 <= exact - scaled <= ((cycles << shift) >> 32) + 1


@pytest.mark.parametrize("frequency", [0, -1, 1 << 80])
def test_frequencies_beyond_any_scale(frequency: int) -> None:
    with pytest.raises(ValueError, match="cannot be scaled"):
        cycle_scale(frequency)
