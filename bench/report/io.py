"""Input and output: what serves an operation, what that takes, and when it pays."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.costs import Model, Unit, load_models
from bench.record import Row
from bench.report.figure import Figure, Table
from bench.report.style import COLOURS, HATCHES, draw, plain_axes

if TYPE_CHECKING:
    from bench.iocost import IoCost

__all__ = ["io_figure"]

_FILTERS_PAY = (
    "A port filter pays for reads that little state answers, of a counter that runs or a status "
    "that is polled: the exit stays and becomes light."
)
_REFLECTION_PAYS = (
    "Reflection pays for drivers that nobody can change, where the ROM has taken the device: an "
    "access is a light exit, a repeated string instruction a single one. Where an instruction is "
    "as long as a call it is replaced by one, and has no exit any more."
)
_CALLS_PAY = (
    "Work in the ROM pays where the guest can be made to call it: most of the exits are gone, for "
    "the instructions that the table shows. Where a device is told something at every access, as "
    "a console byte by byte, nothing helps but to answer its status in the core."
)


def io_figure(rows: Sequence[Row], models: Sequence[Model] | None = None) -> Figure | None:
    """Exits of each operation by what serves it, with what they cost; none without rows.

    `models` are the cost models, by default the newest of each source that is not nested.
    """
    from bench.iocost import io_costs  # noqa: PLC0415 - needs the suites, which load guests
    from bench.suites import IO_UNITS  # noqa: PLC0415

    found = io_costs(rows)
    if not found:
        return None
    found.sort(key=lambda cost: (list(IO_UNITS).index(cost.unit), -cost.exits, -cost.heavy))
    with draw(height=1.0 + 0.32 * len(found)) as drawing:
        axes = plain_axes(drawing.subplots(), grid="x")
        light = [cost.exits - cost.heavy for cost in found]
        heavy = [cost.heavy for cost in found]
        places = range(len(found))
        axes.barh(places, light, color=COLOURS[4], hatch=HATCHES[0], label="light")
        bars = axes.barh(
            places, heavy, left=light, color=COLOURS[1], hatch=HATCHES[1], label="heavy"
        )
        axes.bar_label(bars, [f"{cost.exits:,.4g}" for cost in found], padding=3, fontsize=8)
        axes.set_yticks(places, [f"{IO_UNITS[cost.unit]}: {cost.served_by}" for cost in found])
        axes.invert_yaxis()
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=0)
        axes.margins(x=0.15)
        axes.set_xlabel("exits of each operation")
        axes.legend(loc="lower right")
    chosen = _one_a_source() if models is None else models
    return Figure(
        "io",
        "Input and output",
        _text(found, IO_UNITS),
        "Bars: light and heavy exits of each operation, by what serves it.",
        drawing,
        (
            Table.of(
                "Exits of each operation",
                ("operation", "served by", "policy", "light", "heavy", "instructions"),
                [
                    (
                        IO_UNITS[cost.unit],
                        cost.served_by,
                        cost.policy,
                        cost.exits - cost.heavy,
                        cost.heavy,
                        cost.instructions,
                    )
                    for cost in found
                ],
            ),
            Table.of(
                "What the exits of each operation cost, estimated (typical)",
                ("operation", "served by", "policy", *(_title(model) for model in chosen)),
                [
                    (
                        IO_UNITS[cost.unit],
                        cost.served_by,
                        cost.policy,
                        *(round(cost.cost(model).typical) for model in chosen),
                    )
                    for cost in found
                ],
            ),
        ),
    )


def _one_a_source() -> list[Model]:
    """The newest model of each source, but for nested machines."""
    return list({model.source: model for model in load_models() if not model.nested}.values())


def _title(model: Model) -> str:
    return f"{model.name}, {'cycles' if model.unit is Unit.CYCLES else 'ns'}"


def _text(found: "Sequence[IoCost]", units: Mapping[str, str]) -> tuple[str, ...]:
    """What serves each operation with the fewest exits, and when each way pays."""
    text = [
        "Exits of one operation, by what serves it: light ones in the core, heavy ones in a device."
    ]
    for unit, name in units.items():
        group = [cost for cost in found if cost.unit == unit]
        plain = next((c for c in group if c.variant == "plain" and c.rom == "none"), None)
        others = [cost for cost in group if cost is not plain]
        if plain is None or not others:
            continue
        best = min((cost.heavy, cost.exits) for cost in others)
        if best < (plain.heavy, plain.exits):
            ways = [cost.served_by for cost in others if (cost.heavy, cost.exits) == best]
            text.append(
                f"{name}: fewest by {' or '.join(ways)}, {best[1]:,.4g} exits, {best[0]:,.4g} of "
                f"them heavy; the plain device has {plain.exits:,.4g}, {plain.heavy:,.4g} heavy."
            )
        else:
            text.append(f"{name}: nothing saves anything against the plain device.")
    text += [_FILTERS_PAY, _REFLECTION_PAYS, _CALLS_PAY]
    return tuple(text)
