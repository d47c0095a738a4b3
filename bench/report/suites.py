"""What the other suites have to show: table sizes, I/O, a Linux boot."""

from collections.abc import Sequence

from bench.costs import Model
from bench.record import Row
from bench.report.data import trios
from bench.report.figure import Figure, Table
from bench.report.io import io_figure
from vmm.core.event import Reason

__all__ = ["extra_figures"]


def extra_figures(
    rows: Sequence[Row], models: Sequence[Model] | None = None
) -> list[Figure | None]:
    """Figures of the suites `paging`, `io` and `linux`, where they were run."""
    by_suite: dict[str, list[Row]] = {}
    for row in rows:
        by_suite.setdefault(row.case.suite, []).append(row)
    return [
        _paging(by_suite.get("paging", [])),
        io_figure(by_suite.get("io", []), models),
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
