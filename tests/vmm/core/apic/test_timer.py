"""The local APIC's timer in its three modes, on virtual time."""

import pytest

from vmm.core.localapic import LocalApic
from vmm.core.timers import NEVER, Timers

EOI, SVR, TIMER, INITIAL, CURRENT, DIVIDE = 0xB0, 0xF0, 0x320, 0x380, 0x390, 0x3E0
PERIODIC, DEADLINE, MASKED = 0x20000, 0x40000, 0x10000
BY_1, BY_2, BY_16, BY_128 = 0xB, 0x0, 0x3, 0xA


class Clock:
    """Virtual time under a local APIC; counts the interrupts that get in."""

    def __init__(self) -> None:
        self.time = 1000
        self.timers = Timers()
        self.apic = LocalApic(0, 1, self.timers, lambda: self.time, None)
        self.apic.write(SVR, 0x1FF)
        self.taken: list[tuple[int, int]] = []

    def go_to(self, when: int) -> None:
        """Let time pass, from one timer to the next, and take each interrupt at once."""
        while self.timers.next_due() <= when:
            self.time = self.timers.next_due()
            self.timers.run_due(self.time)
            self.take()
        self.time = when

    def take(self) -> None:
        while self.apic.pending:
            self.taken.append((self.time, self.apic.acknowledge()))
            self.apic.write(EOI, 0)

    def taken_at(self) -> list[int]:
        return [when for when, _ in self.taken]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("code", "step"),
    [(0xB, 1), (0x0, 2), (0x1, 4), (0x2, 8), (0x3, 16), (0x8, 32), (0x9, 64), (0xA, 128)],
)
def test_divide(clock: Clock, code: int, step: int) -> None:
    clock.apic.write(TIMER, 0x41)
    clock.apic.write(DIVIDE, code)
    clock.apic.write(INITIAL, 100)
    assert clock.apic.read(CURRENT) == 100
    clock.go_to(1000 + 40 * step - 1)
    assert clock.apic.read(CURRENT) == 61
    clock.go_to(1000 + 40 * step)
    assert clock.apic.read(CURRENT) == 60
    clock.go_to(1000 + 1000 * step)
    assert clock.taken == [(1000 + 100 * step, 0x41)]


def test_one_shot_stops_at_zero(clock: Clock) -> None:
    clock.apic.write(TIMER, 0x41)
    clock.apic.write(DIVIDE, BY_1)
    clock.apic.write(INITIAL, 5000)
    clock.go_to(100_000)
    assert clock.taken_at() == [6000]
    assert clock.apic.read(CURRENT) == 0
    assert clock.apic.read(INITIAL) == 5000
    assert clock.timers.next_due() == NEVER


def test_periodic_does_not_drift(clock: Clock) -> None:
    clock.apic.write(TIMER, 0x41 | PERIODIC)
    clock.apic.write(DIVIDE, BY_16)
    clock.apic.write(INITIAL, 1000)
    clock.go_to(1000 + 16_000 * 5)
    assert clock.taken_at() == [1000 + 16_000 * n for n in range(1, 6)]
    assert clock.apic.read(CURRENT) == 1000
    clock.go_to(clock.time + 15_999)
    assert clock.apic.read(CURRENT) == 1


def test_late_expiries_of_a_periodic_timer_are_one_interrupt(clock: Clock) -> None:
    clock.apic.write(TIMER, 0x41 | PERIODIC)
    clock.apic.write(DIVIDE, BY_1)
    clock.apic.write(INITIAL, 5000)
    clock.time = 1000 + 5000 * 3 + 100
    clock.timers.run_due(clock.time)
    clock.take()
    assert len(clock.taken) == 1
    assert clock.timers.next_due() == 1000 + 5000 * 4


def test_a_new_count_starts_afresh_and_zero_stops(clock: Clock) -> None:
    clock.apic.write(TIMER, 0x41 | PERIODIC)
    clock.apic.write(DIVIDE, BY_1)
    clock.apic.write(INITIAL, 5000)
    clock.go_to(4000)
    clock.apic.write(INITIAL, 3000)
    clock.go_to(7000)
    assert clock.taken_at() == [7000]
    clock.apic.write(INITIAL, 0)
    clock.go_to(100_000)
    assert clock.taken_at() == [7000]
    assert clock.apic.read(CURRENT) == 0
    assert clock.timers.next_due() == NEVER


def test_masked_it_counts_and_is_not_heard(clock: Clock) -> None:
    clock.apic.write(TIMER, 0x41 | PERIODIC | MASKED)
    clock.apic.write(DIVIDE, BY_1)
    clock.apic.write(INITIAL, 5000)
    assert clock.timers.next_due() == NEVER
    clock.go_to(1000 + 5000 + 1000)
    assert clock.apic.read(CURRENT) == 4000
    clock.apic.write(TIMER, 0x42 | PERIODIC)
    assert not clock.apic.pending
    clock.go_to(20_000)
    assert clock.taken == [(11_000, 0x42), (16_000, 0x42)]


def test_a_one_shot_that_ran_out_masked_is_gone(clock: Clock) -> None:
    clock.apic.write(TIMER, 0x41 | MASKED)
    clock.apic.write(DIVIDE, BY_1)
    clock.apic.write(INITIAL, 5000)
    clock.go_to(10_000)
    clock.apic.write(TIMER, 0x41)
    clock.go_to(100_000)
    assert clock.taken == []


def test_another_rate_in_the_middle(clock: Clock) -> None:
    clock.apic.write(TIMER, 0x41)
    clock.apic.write(DIVIDE, BY_2)
    clock.apic.write(INITIAL, 1000)
    clock.go_to(2000)
    assert clock.apic.read(CURRENT) == 500
    clock.apic.write(DIVIDE, BY_128)
    assert clock.apic.read(CURRENT) == 500
    clock.go_to(1_000_000)
    assert clock.taken_at() == [2000 + 500 * 128]


@pytest.mark.parametrize("register", [TIMER, INITIAL, DIVIDE, SVR])
def test_an_expiry_is_not_lost_to_a_store_right_after_it(clock: Clock, register: int) -> None:
    """The processor is in the middle of a block when the time comes."""
    clock.apic.write(TIMER, 0x41)
    clock.apic.write(DIVIDE, BY_1)
    clock.apic.write(INITIAL, 5000)
    clock.time = 6001
    clock.apic.write(register, {TIMER: 0x42, INITIAL: 0, DIVIDE: BY_16, SVR: 0x1FE}[register])
    clock.take()
    assert clock.taken == [(6001, 0x41)]
    clock.go_to(1_000_000)
    assert len(clock.taken) == 1


def test_a_period_shorter_than_anything_leaves_time_to_the_guest(clock: Clock) -> None:
    clock.apic.write(DIVIDE, BY_1)
    clock.apic.write(TIMER, 0x41 | PERIODIC)
    clock.apic.write(INITIAL, 1)
    clock.go_to(1000 + 20_000)
    assert 9 <= len(clock.taken) <= 11


def test_deadline(clock: Clock) -> None:
    clock.apic.set_deadline_msr(5000)
    assert clock.apic.deadline_msr() == 0, "not in this mode"
    clock.apic.write(TIMER, 0x41 | DEADLINE)
    clock.apic.write(INITIAL, 100)
    assert clock.apic.read(INITIAL) == clock.apic.read(CURRENT) == 0
    clock.apic.set_deadline_msr(5000)
    assert clock.apic.deadline_msr() == 5000
    clock.go_to(4999)
    assert clock.taken == []
    clock.go_to(90_000)
    assert clock.taken == [(5000, 0x41)]
    assert clock.apic.deadline_msr() == 0
    # A time that has passed already is due at once.
    clock.apic.set_deadline_msr(80_000)
    clock.timers.run_due(clock.time)
    clock.take()
    assert clock.taken_at() == [5000, 90_000]
    clock.apic.set_deadline_msr(95_000)
    clock.apic.set_deadline_msr(0)
    clock.go_to(100_000)
    assert len(clock.taken) == 2


def test_another_mode_stops_the_timer(clock: Clock) -> None:
    clock.apic.write(TIMER, 0x41 | DEADLINE)
    clock.apic.set_deadline_msr(5000)
    clock.apic.write(TIMER, 0x41)
    assert clock.apic.deadline_msr() == 0
    clock.go_to(10_000)
    assert clock.taken == []
    clock.apic.write(INITIAL, 1000)
    clock.apic.write(TIMER, 0x41 | PERIODIC)
    clock.go_to(100_000)
    assert clock.taken == []


def test_switched_off_it_is_silent(clock: Clock) -> None:
    clock.apic.write(TIMER, 0x41 | PERIODIC)
    clock.apic.write(DIVIDE, BY_1)
    clock.apic.write(INITIAL, 5000)
    assert clock.apic.set_base_msr(0xFEE00000)
    clock.go_to(100_000)
    assert clock.taken == []
    assert clock.timers.next_due() == NEVER


def test_a_running_timer_is_saved_and_goes_on_elsewhere(clock: Clock) -> None:
    clock.apic.write(TIMER, 0x41 | PERIODIC)
    clock.apic.write(DIVIDE, BY_16)
    clock.apic.write(INITIAL, 1000)
    clock.go_to(20_000)
    other = Clock()
    other.time = 20_000
    other.apic.restore(clock.apic.save())
    other.go_to(60_000)
    clock.go_to(60_000)
    assert clock.taken_at() == [17_000, *other.taken_at()] == [17_000, 33_000, 49_000]
