from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from vmm.core.counters import Counters
from vmm.core.event import Event

EVENTS = st.lists(
    st.tuples(st.sampled_from(list(Event)), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
)


@given(EVENTS)
def test_places_add_up(events: list[tuple[Event, int, int]]) -> None:
    counters = Counters()
    for event in events:
        counters.count(*event)
    places, elsewhere = counters.places()
    assert elsewhere == 0
    assert {row[:3]: row[3] for row in places} == Counter(events)
    assert [row[3] for row in places] == sorted((row[3] for row in places), reverse=True)
    totals = Counter(event for event, _, _ in events)
    assert counters.totals() == {event: (count, 0) for event, count in totals.items()}


def test_heavy_ones_are_counted_twice_over() -> None:
    counters = Counters()
    counters.count(Event.IO, 1, 2)
    counters.count_heavy(Event.IO, 1, 2)
    assert counters.totals() == {Event.IO: (2, 1)}
    assert counters.places()[0] == [(Event.IO, 1, 2, 2)]


def test_a_full_table_counts_elsewhere() -> None:
    counters = Counters()
    for eip in range(40_000):
        counters.count(Event.MMIO, eip, 2 * eip)
    places, elsewhere = counters.places()
    assert len(places) + elsewhere == 40_000
    assert 20_000 < len(places) < 32_768
    counters.count(Event.MMIO, 0, 0)
    assert counters.places()[0][0] == (Event.MMIO, 0, 0, 2)
    assert counters.totals()[Event.MMIO] == (40_001, 0)
