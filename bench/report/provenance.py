"""Where every number comes from: what ran, by what, on which machine."""

from collections.abc import Sequence

from bench.record import Row
from bench.report.figure import Table

__all__ = ["machines_table", "runs_table"]


def runs_table(rows: Sequence[Row]) -> Table:
    """Every run: its case, its counts, and the hashes of what ran."""
    return Table.of(
        "Every run",
        (
            "run", "suite", "repetition", "exits", "light", "heavy", "instructions", "updates",
            "flushes", "CPU s", "outcome", "guest image", "ROM image", "engine", "code", "begun",
        ),
        [
            (
                row.case.label,
                row.case.suite,
                row.repetition,
                *_counts(row),
                f"{row.cpu_seconds:.3f}",
                row.outcome.value,
                row.case.guest_sha256[:12],
                (row.case.rom_sha256 or "-")[:12],
                row.case.engine,
                row.build.label,
                f"{row.started_at:%Y-%m-%d %H:%M}",
            )
            for row in rows
        ],
    )  # fmt: skip


def _counts(row: Row) -> tuple[object, ...]:
    counts = row.counts
    if counts is None:
        return ("-",) * 6
    return (
        counts.exits,
        counts.light,
        counts.heavy,
        counts.instructions,
        counts.updates,
        counts.flushes,
    )


def machines_table(rows: Sequence[Row]) -> Table:
    """The machines and versions behind the runs."""
    seen: dict[tuple[str, str, str], int] = {}
    for row in rows:
        host = ", ".join(f"{name} {value}" for name, value in sorted(row.build.host.items()))
        key = (row.build.label, row.build.core, host)
        seen[key] = seen.get(key, 0) + 1
    return Table.of(
        "What ran them",
        ("vmirom", "core", "machine", "runs"),
        [(*key, count) for key, count in seen.items()],
    )
