"""`vmirom bench history` and `bench diff`: results over versions."""

import sys
from pathlib import Path

import click

from bench.history import Difference, compare_rows, eras, rows_of
from bench.record import Row
from bench.store import Results
from vmirom.options import as_json
from vmirom.output import number, plain_table, print_json, stdout

__all__ = ["diff", "history"]

_SHOWN = 4
"""Counts of a changed case that the table names."""


@click.command(epilog="Example: vmirom bench history results.db --json")
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@as_json
def history(results: Path, *, json_output: bool) -> None:
    """List what RESULTS holds: builds, suites, runs, and their exits."""
    with Results(results, create=False) as opened:
        found = eras(opened.rows())
    if json_output:
        print_json(
            {
                "schema": "vmirom.bench.history/1",
                "eras": [
                    {
                        "version": era.build.version,
                        "code": era.build.code,
                        "suite": era.suite,
                        "first": era.first.isoformat(),
                        "last": era.last.isoformat(),
                        "cases": era.cases,
                        "runs": era.runs,
                        "failed": era.failed,
                        "exits": era.exits,
                    }
                    for era in found
                ],
            }
        )
        return
    table = plain_table("since", "build", "suite", "cases", "runs", "failed", "exits")
    table.columns[1].justify = table.columns[2].justify = "left"
    for era in found:
        table.add_row(
            f"{era.first:%Y-%m-%d %H:%M}",
            era.build.label,
            era.suite,
            number(era.cases),
            number(era.runs),
            number(era.failed),
            number(era.exits),
        )
    stdout.print(table)


@click.command(
    epilog="Examples: vmirom bench diff before.db after.db; "
    "vmirom bench diff results.db@0.1.0+3fa9 results.db --json"
)
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@as_json
def diff(before: str, after: str, *, json_output: bool) -> None:
    """Show what changed from A to B, in exact counts.

    Each is a result file, or FILE@BUILD for one of several builds in it: a version, the
    start of the code's hash, or both as `bench history` prints them. Without a build it is
    the latest in the file. The exit status is 1 when a count or an outcome differs.
    """
    found = compare_rows(_rows(before), _rows(after))
    if json_output:
        print_json(_to_json(found))
    else:
        _print(found)
    if found.changes:
        sys.exit(1)


def _rows(name: str) -> list[Row]:
    path, _, build = name.partition("@") if not Path(name).exists() else (name, "", "")
    with Results(Path(path), create=False) as results:
        return rows_of(results.rows(), build)


def _to_json(found: Difference) -> dict[str, object]:
    return {
        "schema": "vmirom.bench.diff/1",
        "same": found.same,
        "changed": [
            {
                "case": change.case.label,
                "suite": change.case.suite,
                "counts": {
                    name: {"before": before, "after": after}
                    for name, before, after in change.counts
                },
                "causes": list(change.causes),
            }
            for change in found.changes
        ],
        "only_before": [case.label for case in found.only_before],
        "only_after": [case.label for case in found.only_after],
    }


def _print(found: Difference) -> None:
    for change in found.changes:
        stdout.print(f"{change.case.suite}: {change.case.label}", markup=False)
        for name, before, after in change.counts[:_SHOWN]:
            step = f" ({after - before:+,})" if isinstance(after, int) else ""
            shown = [f"{v:,}" if isinstance(v, int) else str(v) for v in (before, after)]
            stdout.print(f"  {name}: {shown[0]} to {shown[1]}{step}", markup=False)
        if len(change.counts) > _SHOWN:
            stdout.print(f"  and {len(change.counts) - _SHOWN} more; --json has all")
        if change.causes:
            stdout.print(f"  {', '.join(change.causes)}", markup=False)
    for text, cases in (("only in A", found.only_before), ("only in B", found.only_after)):
        for case in cases:
            stdout.print(f"{text}: {case.suite}: {case.label}", markup=False)
    stdout.print(f"{number(found.same)} the same, {number(len(found.changes))} changed")
