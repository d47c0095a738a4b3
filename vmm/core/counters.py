"""Event counters: how often, and at which place.

The table of places has a fixed size, so that memory does not grow with the number
of exits; what finds no room is counted as "elsewhere".
"""

from array import array

import cython

from vmm.core.event import Event

EVENTS = cython.declare(cython.uint, len(Event))
PLACES = cython.declare(cython.uint, 1 << 15)
PLACES_MASK = cython.declare(cython.uint, (1 << 15) - 1)
PLACES_LIMIT = cython.declare(cython.uint, (1 << 15) - (1 << 13))


@cython.final
@cython.cclass
class Counters:
    """Counts by `Event`; places are (event, qualifier, instruction address)."""

    def __init__(self):
        self.events = array("Q", bytes(8 * EVENTS))
        self.heavy = array("Q", bytes(8 * EVENTS))
        self.place_event = array("I", bytes(4 * PLACES))
        self.place_qualifier = array("I", bytes(4 * PLACES))
        self.place_eip = array("I", bytes(4 * PLACES))
        self.place_count = array("Q", bytes(8 * PLACES))
        self.used = 0
        self.elsewhere = 0

    def count(self, event: cython.uint, qualifier: cython.uint, eip: cython.uint) -> cython.int:
        """Count one event."""
        self.events[event] += 1
        slot: cython.uint = (event * 40503 + qualifier * 2654435 + eip * 31) & PLACES_MASK
        while self.place_count[slot]:
            if (
                self.place_eip[slot] == eip
                and self.place_qualifier[slot] == qualifier
                and self.place_event[slot] == event
            ):
                self.place_count[slot] += 1
                return 0
            slot = (slot + 1) & PLACES_MASK
        if self.used >= PLACES_LIMIT:
            self.elsewhere += 1
            return 0
        self.used += 1
        self.place_event[slot] = event
        self.place_qualifier[slot] = qualifier
        self.place_eip[slot] = eip
        self.place_count[slot] = 1
        return 0

    def count_heavy(
        self, event: cython.uint, qualifier: cython.uint, eip: cython.uint
    ) -> cython.int:
        """Count one event that a device serves."""
        self.heavy[event] += 1
        return self.count(event, qualifier, eip)

    def total(self, event):
        """How often an event happened."""
        return int(self.events[event])

    def totals(self):
        """{event: (all, of which heavy)} of the events that happened."""
        return {
            Event(i): (int(self.events[i]), int(self.heavy[i]))
            for i in range(EVENTS)
            if self.events[i]
        }

    def places(self):
        """[(event, qualifier, eip, count)], most frequent first, and the count elsewhere."""
        rows = [
            (
                Event(self.place_event[i]),
                int(self.place_qualifier[i]),
                int(self.place_eip[i]),
                int(self.place_count[i]),
            )
            for i in range(PLACES)
            if self.place_count[i]
        ]
        rows.sort(key=lambda row: (-row[3], row[0], row[1], row[2]))
        return rows, int(self.elsewhere)
