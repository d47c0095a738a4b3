"""Event counters: how often, and at which place.

The table of places has a fixed size, so that memory does not grow with the number
of exits; what finds no room is counted as "elsewhere".
"""

from array import array

import cython

from vmm.core.event import Event
from vmm.core.recorder import Recorder
from vmm.core.saved import ARRAY, U32, U64, BadState, Fields

if not cython.compiled:
    from vmm.core.native import barrier

EVENTS = cython.declare(cython.uint, len(Event))
PLACES = cython.declare(cython.uint, 1 << 15)
PLACES_MASK = cython.declare(cython.uint, (1 << 15) - 1)
PLACES_LIMIT = cython.declare(cython.uint, (1 << 15) - (1 << 13))
RDTSC = cython.declare(cython.uint, Event.RDTSC)
PAUSE = cython.declare(cython.uint, Event.PAUSE)
# Words of the record that others read, as `vmm.core.latestexit` has them.
SEQUENCE = cython.declare(cython.uint, 0)
NUMBER = cython.declare(cython.uint, 1)
EVENT = cython.declare(cython.uint, 2)
QUALIFIER = cython.declare(cython.uint, 3)
ADDRESS = cython.declare(cython.uint, 4)
WEIGHT = cython.declare(cython.uint, 5)
# How many of the latest events are remembered one by one.
RECENT = cython.declare(cython.uint, 16)
RECENT_MASK = cython.declare(cython.uint, 15)


@cython.final
@cython.cclass
class Counters:
    """Counts by `Event`; places are (event, qualifier, instruction address).

    A `recorder`, where there is one, is told of every event.
    """

    SAVED = Fields(
        {
            ARRAY: "events heavy place_event place_qualifier place_eip place_count "
            "recent_event recent_qualifier recent_eip",
            U32: "used",
            U64: "seen elsewhere",
        },
        host="recorder record",
        transient="is_heavy",
    )

    def __init__(self):
        self.recorder: Recorder = None
        self.events = array("Q", bytes(8 * EVENTS))
        self.heavy = array("Q", bytes(8 * EVENTS))
        self.place_event = array("I", bytes(4 * PLACES))
        self.place_qualifier = array("I", bytes(4 * PLACES))
        self.place_eip = array("I", bytes(4 * PLACES))
        self.place_count = array("Q", bytes(8 * PLACES))
        self.recent_event = array("I", bytes(4 * RECENT))
        self.recent_qualifier = array("I", bytes(4 * RECENT))
        self.recent_eip = array("I", bytes(4 * RECENT))
        self.record = array("Q", bytes(64))
        self.is_heavy = False
        self.seen = 0
        self.used = 0
        self.elsewhere = 0

    def _check_saved(self):
        """A table with room, and events that there are."""
        used = len([count for count in memoryview(self.place_count) if count])
        if used != self.used or used > PLACES_LIMIT:
            raise BadState(f"{used} places counted, {self.used} said, of {PLACES_LIMIT}")
        events = [*memoryview(self.place_event), *memoryview(self.recent_event)]
        if max(events) >= EVENTS:
            raise BadState(f"an event beyond the {EVENTS} that there are")

    def count(self, event: cython.uint, qualifier: cython.uint, eip: cython.uint) -> cython.int:
        """Count one event."""
        if self.recorder is not None:
            self.recorder.note(event, qualifier, eip)
        if event != RDTSC and event != PAUSE:
            # A guest that waits reads the time, or spins, and does nothing else; that says
            # little.
            latest: cython.uint = cython.cast(cython.uint, self.seen & RECENT_MASK)
            self.recent_event[latest] = event
            self.recent_qualifier[latest] = qualifier
            self.recent_eip[latest] = eip
            self.seen += 1
        self.events[event] += 1
        self.tell(event, qualifier, eip)
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

    def share(self, record):
        """Keep the latest event in these words from now on (`vmm.core.latestexit`)."""
        self.record = record

    def tell(self, event: cython.uint, qualifier: cython.uint, eip: cython.uint) -> cython.int:
        """Write the record of the latest event; its sequence number is odd meanwhile."""
        self.record[SEQUENCE] += 1
        barrier()
        self.record[NUMBER] += 1
        self.record[EVENT] = event
        self.record[QUALIFIER] = qualifier
        self.record[ADDRESS] = eip
        self.record[WEIGHT] = self.is_heavy
        barrier()
        self.record[SEQUENCE] += 1
        return 0

    def count_heavy(
        self, event: cython.uint, qualifier: cython.uint, eip: cython.uint
    ) -> cython.int:
        """Count one event that a device serves."""
        self.heavy[event] += 1
        if self.recorder is not None:
            self.recorder.note_heavy()
        self.is_heavy = True
        self.count(event, qualifier, eip)
        self.is_heavy = False
        return 0

    def begin(self) -> cython.int:
        """The engine calls into the core."""
        if self.recorder is not None:
            self.recorder.begin()
        return 0

    def end(self) -> cython.int:
        """Back to the engine."""
        if self.recorder is not None:
            self.recorder.end()
        return 0

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

    def recent(self):
        """[(event, qualifier, eip)] of the latest events, the last one last."""
        first = max(0, int(self.seen) - int(RECENT))
        return [
            (
                Event(self.recent_event[i & RECENT_MASK]),
                int(self.recent_qualifier[i & RECENT_MASK]),
                int(self.recent_eip[i & RECENT_MASK]),
            )
            for i in range(first, int(self.seen))
        ]

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
