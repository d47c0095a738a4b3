"""What the other suites have to show: table sizes, I/O, a Linux boot."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.record import Row
from bench.report.data import trios
from bench.report.figure import Figure, Table
from bench.report.style import COLOURS, HATCHES, draw, plain_axes
from vmm.core.event import Reason

if TYPE_CHECKING:
    from bench.iocost import IoCost

__all__ = ["extra_figures"]


def extra_figures(rows: Sequence[Row]) -> list[Figure | None]:
    """Figures of the suites `paging`, `io` and `linux`, where they were run."""
    by_suite: dict[str, list[Row]] = {}
    for row in rows:
        by_suite.setdefault(row.case.suite, []).append(row)
    return [
        _paging(by_suite.get("paging", [])),
        _io(by_suite.get("io", [])),
        _linux(by_suite.get("linux", [])),
    ]


def _paging(rows: Sequence[Row]) -> Figure | None:
    """Exits for each page-table entry that changed, by guest, size and ROM."""
    groups = trios(rows)
    if not groups:
        return None
    table = []
    for trio in groups:
        for rom, counts in (
            ("no ROM", trio.none),
            ("identity", trio.identity),
            ("batching", trio.batching),
        ):
            if counts is None:
                continue
            writes = counts.by_reason.get(Reason.PTE_WRITE)
            table.append(
                (trio.name, trio.policy, rom, counts.exits, writes.count if writes else 0,
                 counts.hypercalls)
            )  # fmt: skip
    return Figure(
        "paging",
        "Page-table work by size",
        ("The guests of the suite paging, with more and fewer pages mapped at a time.",),
        "A table.",
        None,
        (
            Table.of(
                "Exits of page-table work",
                ("guest", "policy", "ROM", "exits", "pte_write", "hypercalls"),
                table,
            ),
        ),
    )


def _io(rows: Sequence[Row]) -> Figure | None:
    """Exits for each operation, by what serves it."""
    from bench.iocost import io_costs  # noqa: PLC0415 - needs the suites, which load guests
    from bench.suites import IO_UNITS  # noqa: PLC0415

    found = io_costs(rows)
    if not found:
        return None
    found.sort(key=lambda cost: (list(IO_UNITS).index(cost.unit), -cost.exits, -cost.heavy))
    names = [
        f"{IO_UNITS[cost.unit]}: {cost.variant}{'' if cost.rom == 'none' else f', {cost.rom}'}"
        for cost in found
    ]
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
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=0)
        axes.margins(x=0.15)
        axes.set_xlabel("exits for each operation")
        axes.legend(loc="lower right")
    return Figure(
        "io",
        "Input and output",
        _io_text(found, IO_UNITS),
        "Bars: light and heavy exits for each operation, by what serves it.",
        drawing,
        (
            Table.of(
                "Exits for each operation",
                ("operation", "served by", "ROM", "policy", "light", "heavy", "instructions"),
                [
                    (
                        IO_UNITS[cost.unit],
                        cost.variant,
                        cost.rom,
                        cost.policy,
                        cost.exits - cost.heavy,
                        cost.heavy,
                        cost.instructions,
                    )
                    for cost in found
                ],
            ),
        ),
    )


def _io_text(found: Sequence["IoCost"], units: Mapping[str, str]) -> tuple[str, ...]:
    """What serves each operation most cheaply, and what makes no difference."""
    text = [
        "Exits of one operation, by what serves it: light ones in the core, heavy ones in a device."
    ]
    for unit, name in units.items():
        group = [cost for cost in found if cost.unit == unit]
        plain = next((c for c in group if c.variant == "plain" and c.rom == "none"), None)
        others = [cost for cost in group if cost is not plain]
        if plain is None or not others:
            continue
        best = min(others, key=lambda cost: (cost.heavy, cost.exits))
        by = best.variant if best.rom == "none" else f"the {best.rom} ROM ({best.variant})"
        if (best.heavy, best.exits) < (plain.heavy, plain.exits):
            text.append(
                f"{name}: {by} takes {best.exits:,.4g} exits, {best.heavy:,.4g} of them heavy; the "
                f"plain device {plain.exits:,.4g}, {plain.heavy:,.4g} heavy."
            )
        else:
            text.append(f"{name}: nothing saves anything against the plain device.")
    return tuple(text)


def _linux(rows: Sequence[Row]) -> Figure | None:
    """A Linux kernel with each ROM."""
    groups = trios(rows)
    if not groups:
        return None
    return Figure(
        "linux",
        "Linux",
        ("A Linux kernel with VMI, from power on to the end of its workload.",),
        "A table.",
        None,
        (
            Table.of(
                "Exits of a Linux kernel",
                ("guest", "policy", "no ROM", "identity", "batching", "saved, %"),
                [
                    (
                        trio.name,
                        trio.policy,
                        trio.none.exits,
                        trio.identity.exits if trio.identity else "-",
                        trio.batching.exits if trio.batching else "-",
                        "-" if (p := trio.percent(trio.batching)) is None else f"{p:.1f}",
                    )
                    for trio in groups
                ],
            ),
        ),
    )
