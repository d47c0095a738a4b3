"""What one device operation costs: the difference of two runs, over that of their operations."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.record import Counts, Row
from bench.suites import IO_UNITS

__all__ = ["IoCost", "io_costs"]


@dataclass(frozen=True, slots=True)
class IoCost:
    """Exits of one operation, `heavy` of them served by a device. `unit` is in `IO_UNITS`."""

    unit: str
    policy: str
    variant: str
    rom: str
    exits: float
    heavy: float
    instructions: float


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
                        )
                    )
                    break
    return costs
