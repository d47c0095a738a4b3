"""Confidence intervals for times: how far a mean of a few repetitions can be trusted."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vmm.core.errors import BadDescription

__all__ = ["Interval", "mean_interval", "ratio_interval", "require_scipy"]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the interval that holds the true one with 95 % confidence.

    `low` and `high` are none for a single repetition, which tells nothing of its error.
    """

    mean: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def require_scipy() -> Any:
    """Load the statistics of scipy, which is an extra. Raises `BadDescription` without them."""
    try:
        from scipy import stats  # noqa: PLC0415 - an extra
    except ImportError:
        raise BadDescription(
            "intervals of several repetitions need scipy: pip install 'vmirom[report]'"
        ) from None
    return stats


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean. Raises `BadDescription` when scipy is not installed."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean)
    found = require_scipy().ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    return Interval(mean, float(found.low), float(found.high))


def ratio_interval(values: Sequence[float], reference: Sequence[float]) -> Interval:
    """The interval of the mean ratio of interleaved pairs: each to its neighbour in time.

    A host that slows down slows both of a pair, so their ratio stands. Raises
    `ValueError` when the two differ in length.
    """
    return mean_interval([a / b for a, b in zip(values, reference, strict=True)])
