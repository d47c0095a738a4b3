"""Timers on virtual time: what devices wait for."""

import heapq
from collections.abc import Callable

from vmm.core.saved import CUSTOM, BadState, Fields

__all__ = ["NEVER", "Timers"]

NEVER = (1 << 64) - 1
"""Later than any virtual time, in nanoseconds."""


class Timers:
    """Callbacks due at a virtual time, in nanoseconds; equal times run in order of request.

    `on_change` is told when the next timer is due whenever that has changed, so that
    a timer set from inside an exit is not overslept.
    """

    SAVED = Fields(
        {CUSTOM: "_order"},
        wiring="on_change",
        elsewhere="_heap _cancelled",
    )

    def __init__(self) -> None:
        self.on_change: Callable[[int], None] = lambda _due: None
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._cancelled: set[int] = set()

    def _save_order(self) -> int:
        """For `vmm.core.saved`: the next key. A timer is saved with who waits for it."""
        return self._order

    def _load_order(self, value: int) -> None:
        """The same; to be loaded when every timer is there."""
        if not 0 <= value < NEVER or any(key >= value for _, key, _ in self._heap):
            raise ValueError(f"next key {value}")
        self._order = value

    def clear(self) -> None:
        """Forget every timer: saved ones are to be restored."""
        self._heap.clear()
        self._cancelled.clear()

    def due(self, key: int) -> int | None:
        """When a timer is due, none if it has run or was cancelled."""
        if key in self._cancelled:
            return None
        return next((when for when, other, _ in self._heap if other == key), None)

    def restore(self, when_and_key: list[int], callback: Callable[[], None]) -> None:
        """Set a saved timer again, by when it is due and its key; raises `BadState`."""
        numbers = when_and_key if isinstance(when_and_key, list) else []
        if len(numbers) != 2 or not all(type(n) is int and 0 <= n < NEVER for n in numbers):
            raise BadState(f"timer {when_and_key!r}: expected its time and key")
        when, key = numbers
        if any(other == key for _, other, _ in self._heap):
            raise BadState(f"two timers with the key {key}")
        heapq.heappush(self._heap, (when, key, callback))

    def at(self, when: int, callback: Callable[[], None]) -> int:
        """Run `callback` once virtual time reaches `when`; answers a key for `cancel`."""
        key, self._order = self._order, self._order + 1
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
