"""What a run's exits would have cost, and what those that a ROM saved would have."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.costs.model import Model, Range
from vmm.core.event import Reason, Weight
from vmm.core.ledger import ReasonCount

__all__ = ["Estimate", "Saved", "estimate", "estimate_saved"]

Exits = Mapping[Reason, ReasonCount]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of so many exits by one model. `cycles` or `seconds` is none without a clock.

    `light`, `heavy` and `by_reason` are parts of the whole in the model's unit.
    """

    model: Model
    exits: int
    cycles: Range | None
    seconds: Range | None
    light: Range
    heavy: Range
    by_reason: dict[Reason, Range]

    def share(self, reason: Reason) -> float:
        """The part of the typical cost that a reason has, 0 to 1."""
        whole = self.light.typical + self.heavy.typical
        return self.by_reason[reason].typical / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class Saved:
    """What a run saved against another; negative where it cost more.

    `exits` are all that were saved less all that were added. `amount` is in the model's
    unit; `cycles` or `seconds` is none without a clock.
    """

    model: Model
    exits: int
    amount: Range
    cycles: Range | None
    seconds: Range | None


def estimate(model: Model, exits: Exits) -> Estimate:
    """The cost of exits, given by reason and weight as a ledger has them.

    The low end is that of every exit at its low figure, the high end that of every exit
    at its high figure.
    """
    light = _sum(model, exits, Weight.LIGHT)
    heavy = _sum(model, exits, Weight.HEAVY)
    whole = _add(light, heavy)
    return Estimate(
        model,
        sum(row.count for row in exits.values()),
        model.in_cycles(whole),
        model.in_seconds(whole),
        light,
        heavy,
        {
            reason: _add(
                _sum(model, {reason: row}, Weight.LIGHT), _sum(model, {reason: row}, Weight.HEAVY)
            )
            for reason, row in exits.items()
        },
    )


def estimate_saved(model: Model, before: Exits, after: Exits) -> Saved:
    """The cost of the exits of `before` less that of the exits of `after`.

    One processor serves both, so both are taken at the low figures, at the typical ones
    and at the high ones; the bounds are the least and the most of the three. Where a ROM
    swaps cheap exits for dear ones, they need not come from the low and high figures.
    """
    first, second = (_whole(model, exits) for exits in (before, after))
    ends = [getattr(first, end) - getattr(second, end) for end in ("low", "typical", "high")]
    amount = Range(min(ends), ends[1], max(ends))
    return Saved(
        model,
        sum(row.count for row in before.values()) - sum(row.count for row in after.values()),
        amount,
        model.in_cycles(amount),
        model.in_seconds(amount),
    )


def _whole(model: Model, exits: Exits) -> Range:
    return _add(_sum(model, exits, Weight.LIGHT), _sum(model, exits, Weight.HEAVY))


def _sum(model: Model, exits: Exits, weight: Weight) -> Range:
    total = Range.exactly(0)
    for reason, row in exits.items():
        count = row.light if weight is Weight.LIGHT else row.heavy
        if count:
            total = _add(total, model.cost(reason, weight).times(count))
    return total


def _add(one: Range, other: Range) -> Range:
    return Range(one.low + other.low, one.typical + other.typical, one.high + other.high)
