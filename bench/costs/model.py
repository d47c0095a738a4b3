"""A cost model: what one exit costs, by weight and reason, as one source has it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from vmm.core.event import Reason, Weight

__all__ = ["Factor", "Model", "Range", "Unit"]


class Unit(StrEnum):
    """What a model's figures are in."""

    CYCLES = "cycles"
    NANOSECONDS = "ns"


@dataclass(frozen=True, slots=True)
class Range:
    """A figure with the bounds that its source allows: low <= typical <= high."""

    low: float
    typical: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Range":
        """A figure without a spread."""
        return cls(value, value, value)

    def times(self, factor: float) -> "Range":
        """The range in another unit; `factor` is positive."""
        return Range(self.low * factor, self.typical * factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class Factor:
    """How many times a light exit a heavy one costs, where a model's own source is silent."""

    times: Range
    source: str


@dataclass(frozen=True, slots=True)
class Model:
    """What exits cost on one processor, from one source.

    `light` and `heavy` are for one exit, in `unit`; `by_reason` refines them. `covers`
    says what is in the figures. Without a `heavy` figure of its own a model takes a
    heavy exit as `heavy_factor` times a light one, and without that as a light one.
    `clock_ghz` turns cycles into time and back; it is none where nobody knows it.
    """

    name: str
    generation: str
    unit: Unit
    source: str
    covers: str
    light: Range
    heavy: Range | None = None
    heavy_factor: Factor | None = None
    by_reason: Mapping[tuple[Reason, Weight], Range] = field(default_factory=dict)
    nested: bool = False
    clock_ghz: float | None = None
    clock_source: str = ""

    @property
    def any_heavy(self) -> Range:
        """One heavy exit of which nothing is known by reason, in `unit`."""
        if self.heavy is not None:
            return self.heavy
        if self.heavy_factor is None:
            return self.light
        light, times = self.light, self.heavy_factor.times
        return Range(light.low * times.low, light.typical * times.typical, light.high * times.high)

    def cost(self, reason: Reason, weight: Weight) -> Range:
        """One exit, in `unit`."""
        any_of_weight = self.light if weight is Weight.LIGHT else self.any_heavy
        return self.by_reason.get((reason, weight), any_of_weight)

    def in_cycles(self, amount: Range) -> Range | None:
        """An amount of `unit` in processor cycles; none where that needs an unknown clock."""
        if self.unit is Unit.CYCLES:
            return amount
        return None if self.clock_ghz is None else amount.times(self.clock_ghz)

    def in_seconds(self, amount: Range) -> Range | None:
        """An amount of `unit` in seconds; none where that needs an unknown clock."""
        if self.unit is Unit.NANOSECONDS:
            return amount.times(1e-9)
        return None if self.clock_ghz is None else amount.times(1e-9 / self.clock_ghz)

    def at_clock(self, ghz: float) -> "Model":
        """The model of the same processor at another clock, in GHz."""
        return replace(self, clock_ghz=ghz, clock_source="as asked for")

    @property
    def caveats(self) -> tuple[str, ...]:
        """What an estimate by this model rests on beside its source, in words."""
        found = []
        if self.heavy is None:
            if self.heavy_factor is None:
                found.append("heavy exits are taken as light ones: the source does not tell them")
            else:
                times = self.heavy_factor.times
                span = f"{times.typical:g}"
                if times.low != times.high:
                    span += f" ({times.low:g} to {times.high:g})"
                found.append(
                    f"a heavy exit is {span} times a light one: {self.heavy_factor.source}"
                )
        if self.clock_ghz is not None:
            found.append(f"{self.clock_ghz:g} GHz: {self.clock_source}")
        elif self.unit is Unit.CYCLES:
            found.append("no time: the clock is not known (--clock GHZ)")
        else:
            found.append("no cycles: the clock is not known (--clock GHZ)")
        return tuple(found)
