"""What exits took of the host's time, by reason and weight."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vmm.core.event import REASON_OF, Reason, Weight
from vmm.recording import ExitRecord

__all__ = ["ExitTimes", "Spread"]

_REASONS = {int(event): reason for event, reason in REASON_OF.items()}


@dataclass(slots=True)
class Spread:
    """Nanoseconds of so many exits: their sum, their squares' sum, the least, the most."""

    count: int = 0
    total: int = 0
    squares: int = 0
    least: int = 0
    most: int = 0

    def add(self, value: int) -> None:
        """One more."""
        self.least = value if not self.count else min(self.least, value)
        self.most = max(self.most, value)
        self.count += 1
        self.total += value
        self.squares += value * value

    def join(self, other: "Spread") -> None:
        """All of another."""
        if other.count:
            self.least = min(self.least, other.least) if self.count else other.least
            self.most = max(self.most, other.most)
            self.count += other.count
            self.total += other.total
            self.squares += other.squares

    @property
    def mean(self) -> float:
        """The mean; 0 of none."""
        return self.total / self.count if self.count else 0.0

    @property
    def error_percent(self) -> float:
        """The standard error of the mean, in per cent of it, as perf prints it."""
        if self.count < 2 or not self.total:
            return 0.0
        variance = (self.squares - self.total * self.mean) / (self.count - 1)
        return 100 * math.sqrt(max(0.0, variance) / self.count) / self.mean


class ExitTimes:
    """Sums up what each exit took; an `ExitSink` for `Machine.record(..., timing=True)`.

    The time is from entering the core to leaving it. An exit that the run loop counts,
    an interrupt, takes none there and is left out.
    """

    def __init__(self) -> None:
        self.spreads: dict[tuple[Reason, Weight], Spread] = {}

    def take(self, _cpu: int, exits: Sequence[ExitRecord]) -> None:
        """Add exits."""
        spreads: dict[tuple[int, int], Spread] = {}
        for _, _, host_ns, event, heavy, *_ in exits:
            if host_ns:
                key = (event, heavy)
                if key not in spreads:
                    spreads[key] = Spread()
                spreads[key].add(host_ns)
        for (event, heavy), spread in spreads.items():
            weight = Weight.HEAVY if heavy else Weight.LIGHT
            self.spreads.setdefault((_REASONS[event], weight), Spread()).join(spread)

    def of(self, reason: Reason) -> Spread:
        """Both weights of a reason together."""
        both = Spread()
        for weight in Weight:
            both.join(self.spreads.get((reason, weight), Spread()))
        return both

    def of_weight(self, weight: Weight) -> Spread:
        """All reasons of a weight together."""
        every = Spread()
        for (_, other), spread in self.spreads.items():
            if other is weight:
                every.join(spread)
        return every
