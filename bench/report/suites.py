"""What the other suites have to show: table sizes, I/O, a Linux boot."""

from collections.abc import Sequence

from bench.record import Row
from bench.report.data import trios
from bench.report.figure import Figure, Table
from bench.report.style import COLOURS, HATCHES, draw, plain_axes
from vmm.core.event import Reason

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
    """Exits for each unit of I/O, by what serves it."""
    from bench.suites import IO_UNITS  # noqa: PLC0415 - suites load guests

    table = []
    for row in rows:
        counts = row.counts
        if counts is None or row.repetition:
            continue
        for measure, unit in IO_UNITS.items():
            done = row.measures.get(measure)
            if done:
                table.append(
                    (unit, row.case.variant, row.case.rom, counts.light / done, counts.heavy / done)
                )
    if not table:
        return None
    with draw(height=0.8 + 0.5 * len(table)) as drawing:
        axes = plain_axes(drawing.subplots(), grid="x")
        names = [f"{unit}: {variant}, {'no ROM' if rom == 'none' else rom}"
                 for unit, variant, rom, _, _ in table]  # fmt: skip
        light = [one[3] for one in table]
        heavy = [one[4] for one in table]
        axes.barh(range(len(table)), light, color=COLOURS[4], hatch=HATCHES[0], label="light")
        axes.barh(
            range(len(table)), heavy, left=light, color=COLOURS[1], hatch=HATCHES[1], label="heavy"
        )
        axes.set_yticks(range(len(table)), names)
        axes.invert_yaxis()
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlabel("exits for each")
        axes.legend()
    return Figure(
        "io",
        "Input and output",
        (("Exits for each unit of work, by what serves it: light ones in the core, heavy ones in a "
         "device."),),
        "Bars: light and heavy exits for each unit of I/O.",
        drawing,
        (
            Table.of(
                "Exits for each unit of I/O", ("unit", "served by", "ROM", "light", "heavy"), table
            ),
        ),
    )  # fmt: skip


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
