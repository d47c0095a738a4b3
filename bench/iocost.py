"""What one device operation costs: the difference of two runs, over that of their operations."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.costs import Model, Range, estimate_saved
from bench.record import Counts, Row
from bench.suites import IO_UNITS, PORTS, PORTS_CALLED, PORTS_PADDED
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
    ports: float
    exits: float
    heavy: float
    instructions: float
    operations: float
    before: Mapping[Reason, ReasonCount]
    after: Mapping[Reason, ReasonCount]

    @property
    def served_by(self) -> str:
        """Who does the device's work, in words for a table."""
        if self.rom == "none":
            return "plain device" if self.variant == "plain" else self.variant
        if self.ports == PORTS_CALLED:
            return "ROM, called"
        return "ROM, patched" if self.ports == PORTS_PADDED else "ROM, reflected"

    def cost(self, model: Model) -> Range:
        """Estimated cost of the exits of one operation, in the model's unit.

        The instructions of guest and ROM are not in it.
        """
        return estimate_saved(model, self.after, self.before).amount.times(1 / self.operations)


def io_costs(rows: Iterable[Row]) -> list[IoCost]:
    """The costs in the rows of the suite `io`; repetitions count once."""
    machines: dict[tuple[str, str, str, str, float], list[tuple[dict[str, float], Counts]]] = {}
    for row in rows:
        measures = dict(row.measures)
        if row.counts is not None and {*IO_UNITS, PORTS} <= set(measures):
            case = row.case
            key = (row.build.code, case.policy, case.variant, case.rom, measures[PORTS])
            machines.setdefault(key, []).append((measures, row.counts))
    costs = []
    for (_, policy, variant, rom, ports), runs in machines.items():
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
                            ports,
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
