"""Timers on virtual time: what devices wait for."""

import heapq
from collections.abc import Callable
from itertools import count

__all__ = ["NEVER", "Timers"]

NEVER = (1 << 64) - 1
"""Later than any virtual time, in nanoseconds."""


class Timers:
    """Callbacks due at a virtual time, in nanoseconds; equal times run in order of request.

    `on_change` is told when the next timer is due whenever that has changed, so that
    a timer set from inside an exit is not overslept.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[int], None] = lambda _due: None
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._cancelled: set[int] = set()

    def at(self, when: int, callback: Callable[[], None]) -> int:
        """Run `callback` once virtual time reaches `when`; answers a key for `cancel`."""
        key = next(self._order)
        heapq.heappush(self._heap, (when, key, callback))
        self.on_change(self.next_due())
        return key

    def cancel(self, key: int) -> None:
        """Forget a timer; no harm if it has run."""
        if any(entry[1] == key for entry in self._heap):
            self._cancelled.add(key)
            self.on_change(self.next_due())

    def next_due(self) -> int:
        """When the next timer is due, `NEVER` if there is none."""
        while self._heap and self._heap[0][1] in self._cancelled:
            self._cancelled.discard(heapq.heappop(self._heap)[1])
        return self._heap[0][0] if self._heap else NEVER

    def run_due(self, now: int) -> int:
        """Run every timer due at `now`; answers how many."""
        ran = 0
        while self.next_due() <= now:
            _, _, callback = heapq.heappop(self._heap)
            callback()
            ran += 1
        return ran
