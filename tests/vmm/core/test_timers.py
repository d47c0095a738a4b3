from hypothesis import given
from hypothesis import strategies as st

from vmm.core.timers import NEVER, Timers


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans())), st.integers(0, 60))
def test_timers_run_in_order_and_once(wanted: list[tuple[int, bool]], now: int) -> None:
    timers = Timers()
    ran: list[tuple[int, int]] = []
    for number, (when, cancelled) in enumerate(wanted):
        key = timers.at(when, lambda row=(when, number): ran.append(row))
        if cancelled:
            timers.cancel(key)
    left = sorted((when, number) for number, (when, gone) in enumerate(wanted) if not gone)
    assert timers.next_due() == (left[0][0] if left else NEVER)
    due = [row for row in left if row[0] <= now]
    assert timers.run_due(now) == len(due)
    assert ran == due
    assert timers.run_due(now) == 0


def test_a_timer_may_set_another() -> None:
    timers = Timers()
    ran: list[int] = []

    def again() -> None:
        ran.append(len(ran))
        if len(ran) < 5:
            timers.at(10, again)

    timers.at(5, again)
    assert timers.run_due(10) == 5
    assert timers.next_due() == NEVER


def test_cancelling_what_has_run_does_nothing() -> None:
    timers = Timers()
    key = timers.at(1, lambda: None)
    timers.run_due(1)
    timers.cancel(key)
    timers.at(2, lambda: None)
    assert timers.next_due() == 2
