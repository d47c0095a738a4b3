"""What one device operation costs: the difference of two runs, over that of their operations."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.costs import Model, Range, estimate_saved
from bench.record import Counts, Row
from bench.suites import IO_UNITS
from vmm.core.event import Reason
from vmm.core.ledger import ReasonCount

__all__ = ["IoCost", "io_costs"]


@dataclass(frozen=True, slots=True)
class IoCost:
    """Exits of one operation, `heavy` of them served by a device. `unit` is in `IO_UNITS`.

    They are those of a run (`after`) less those of a run with `operations` fewer
    (`before`), over `operations`.
    """

    unit: str
    policy: str
    variant: str
    rom: str
    exits: float
    heavy: float
    instructions: float
    operations: float
    before: Mapping[Reason, ReasonCount]
    after: Mapping[Reason, ReasonCount]

    @property
    def served_by(self) -> str:
        """Who does the device's work, in words for a table."""
        if self.variant != "plain":
            return self.variant
        return "plain device" if self.rom == "none" else f"ROM {self.rom}"

    def cost(self, model: Model) -> Range:
        """Estimated cost of the exits of one operation, in the model's unit.

        The instructions of guest and ROM are not in it.
        """
        return estimate_saved(model, self.after, self.before).amount.times(1 / self.operations)


def io_costs(rows: Iterable[Row]) -> list[IoCost]:
    """The costs in the rows of the suite `io`; repetitions count once."""
    machines: dict[tuple[str, str, str, str], list[tuple[dict[str, float], Counts]]] = {}
    for row in rows:
        if row.counts is not None and set(IO_UNITS) <= set(row.measures):
            key = (row.build.code, row.case.policy, row.case.variant, row.case.rom)
            machines.setdefault(key, []).append((dict(row.measures), row.counts))
    costs = []
    for (_, policy, variant, rom), runs in machines.items():
        least, base = min(runs, key=lambda run: sum(run[0].values()))
        for unit in IO_UNITS:
            for measures, counts in runs:
                more = measures[unit] - least[unit]
                if more and all(measures[u] == least[u] for u in IO_UNITS if u != unit):
                    costs.append(
                        IoCost(
                            unit,
                            policy,
                            variant,
                            rom,
                            (counts.exits - base.exits) / more,
                            (counts.heavy - base.heavy) / more,
                            (counts.instructions - base.instructions) / more,
                            more,
                            base.by_reason,
                            counts.by_reason,
                        )
                    )
                    break
    return costs
