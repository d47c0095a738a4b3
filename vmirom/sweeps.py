"""What the suites of `vmirom bench` share: options, the sweep, and its end."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from bench.cluster import DaskCluster
from bench.executors import Executor, executor_for
from bench.points import Point
from bench.record import Row
from bench.store import CountsDiffer, Results
from bench.sweep import sweep
from vmirom.gather import gather
from vmirom.options import as_json
from vmirom.output import INTERRUPTED, print_json, stderr, sweep_progress

__all__ = ["Sweep", "perform", "policies_option", "quick_option", "sweep_options"]

F = TypeVar("F", bound=Callable[..., Any])

_WORTH_A_PROCESS = 16
"""Runs that make up for the start of one more process."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """How a suite is run: where results go, how often, and by whom."""

    output: Path | None
    repetitions: int
    jobs: int | None
    scheduler: str | None
    json_output: bool

    def executor(self, runs: int, watch: Callable[[int], None]) -> Executor:
        """Who runs that many."""
        if self.scheduler is not None:
            return DaskCluster(self.scheduler)
        return executor_for(self.processes(runs), watch)

    def processes(self, runs: int) -> int:
        """How many processes here."""
        return self.jobs or max(1, min(os.cpu_count() or 1, runs // _WORTH_A_PROCESS))


def sweep_options(repetitions: int, jobs: int | None = None) -> Callable[[F], F]:
    """Options of every suite, given to the function as one `Sweep` called `how`."""
    return gather(
        "how",
        Sweep,
        as_json,
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Run on the Dask cluster of this scheduler, e.g. tcp://10.0.0.1:8786.",
        ),
        click.option(
            "--jobs",
            type=click.IntRange(min=1),
            default=jobs,
            show_default=str(jobs) if jobs else "by processors and runs",
            metavar="N",
            help="Processes on this machine.",
        ),
        click.option(
            "--repetitions",
            type=click.IntRange(min=1),
            default=repetitions,
            show_default=True,
            metavar="N",
            help="Run everything N times over, interleaved.",
        ),
        click.option(
            "-o",
            "--output",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="RESULTS",
            help="Keep every run in this file, and do what it lacks only.",
        ),
    )


def quick_option(function: F) -> F:
    """A small part of the suite."""
    return click.option("--quick", is_flag=True, help="A small part, in seconds.")(function)


def policies_option(function: F) -> F:
    """Which policies, in place of the suite's own."""
    return click.option(
        "--policy",
        "policies",
        multiple=True,
        metavar="NAME",
        help="A policy in place of the suite's own; may be repeated.",
    )(function)


def perform(
    suite: str, points: Sequence[Point], how: Sweep, show: Callable[[list[Row]], None]
) -> None:
    """Sweep, show the rows as a table or as JSON, and end with the right status.

    1 when a guest failed or counts differ, 130 after Ctrl-C with the rows so far.
    """
    runs = len(points) * how.repetitions
    interrupted = False
    with Results(how.output) as results:
        here = how.scheduler is None and how.processes(runs) == 1
        try:
            with sweep_progress(here=here) as tell:
                rows = sweep(
                    points,
                    results,
                    repetitions=how.repetitions,
                    executor=how.executor(runs, tell.watch),
                    progress=tell,
                )
        except KeyboardInterrupt:
            interrupted = True
            cases = {point.case for point in points}
            rows = [row for row in results.rows(suite) if row.case in cases]
        except CountsDiffer as difference:
            stderr.print(f"vmirom: {difference}", markup=False)
            sys.exit(1)
    if how.json_output:
        print_json(
            {
                "schema": "vmirom.bench.rows/1",
                "suite": suite,
                "rows": [row.record() for row in rows],
            }
        )
    else:
        show(rows)
    if interrupted:
        left = f"; the rest can go on: same command, -o {how.output}" if how.output else ""
        stderr.print(f"vmirom: stopped after {len(rows)} of {runs} runs{left}", markup=False)
        sys.exit(INTERRUPTED)
    failed = [row for row in rows if not row.ok]
    for row in failed:
        stderr.print(f"vmirom: {row.case.label}: {row.outcome}: {row.detail}", markup=False)
    if failed:
        sys.exit(1)
