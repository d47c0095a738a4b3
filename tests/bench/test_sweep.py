"""Sweeps: each run once, in any process, and again after any end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench import suites
from bench.executors import Inline, LocalProcesses
from bench.points import Point, Task, run_task
from bench.record import Row
from bench.store import CountsDiffer, Results
from bench.sweep import sweep
from vmm.core.errors import BadDescription, VmmError
from vmm.core.event import Reason
from vmm.core.ledger import ReasonCount

ROOT = Path(__file__).resolve().parents[2]
SUITE = ("bench", "batching", "--quick", "--guest", "pagefault", "--guest", "mmapstorm")
RUNS = 14
PATIENCE = 60


@pytest.fixture(scope="module")
def points() -> list[Point]:
    """Small ones: without a ROM, identity, and a few queues."""
    return [
        replace(
            point,
            case=replace(point.case, command_line="rounds=1 pages=32"),
            description=replace(point.description, command_line="rounds=1 pages=32"),
        )
        for point in suites.batching(["pagefault"], quick=True)
    ]


def essence(rows: Sequence[Row]) -> dict[str, tuple[object, ...]]:
    """All of the rows but their times."""
    return {
        row.key: (row.case, row.build.code, row.repetition, row.outcome, row.detail, row.counts)
        for row in rows
    }


class Recorder:
    """Runs here, and notes what it is asked for; `alter` changes rows on their way."""

    def __init__(self) -> None:
        self.asked: list[Task] = []

    def alter(self, row: Row) -> Row:
        return row

    def run(self, tasks: Sequence[Task]) -> Iterator[Row]:
        for task in tasks:
            self.asked.append(task)
            yield self.alter(run_task(task))


def test_repetitions_are_interleaved_and_kept(points: list[Point]) -> None:
    recorder = Recorder()
    told: list[tuple[int, int]] = []
    with Results() as results:
        rows = sweep(
            points[:3],
            results,
            repetitions=2,
            executor=recorder,
            progress=lambda done, total, _: told.append((done, total)),
        )
        assert len(results) == 6
    order = [(task.point.case, task.repetition) for task in recorder.asked]
    assert order == [(point.case, repetition) for repetition in (0, 1) for point in points[:3]]
    assert [(row.case, row.repetition) for row in rows] == [
        (point.case, repetition) for point in points[:3] for repetition in (0, 1)
    ]
    assert told == [(done, 6) for done in range(7)]


def test_what_is_there_is_not_run_again(points: list[Point]) -> None:
    recorder = Recorder()
    with Results() as results:
        first = sweep(points[:2], results)
        rows = sweep(points[:3], results, executor=recorder)
    assert [task.point for task in recorder.asked] == [points[2]]
    assert rows[:2] == first


def test_a_point_given_twice_is_run_once(points: list[Point]) -> None:
    with Results() as results:
        assert len(sweep([points[0], points[0]], results)) == 1


def test_a_count_that_changes_ends_the_sweep(points: list[Point]) -> None:
    class OneMore(Recorder):
        def alter(self, row: Row) -> Row:
            if not row.repetition:
                return row
            assert row.counts is not None
            more = {**row.counts.by_reason, Reason.CPUID: ReasonCount(light=1)}
            return replace(row, counts=replace(row.counts, by_reason=more))

    with Results() as results, pytest.raises(CountsDiffer, match="exits_cpuid 1, was 0"):
        sweep(points[:1], results, repetitions=2, executor=OneMore())


def test_rows_of_other_code_are_refused(points: list[Point]) -> None:
    class Elsewhere(Recorder):
        def alter(self, row: Row) -> Row:
            return replace(row, build=replace(row.build, code="f" * 64))

    with Results() as results:
        with pytest.raises(VmmError, match=r"a worker runs vmirom \S+ffffffffff, "):
            sweep(points[:1], results, executor=Elsewhere())
        assert len(results) == 0


def test_ctrl_c_keeps_what_is_done(points: list[Point]) -> None:
    heard: list[int] = []

    def watch(instructions: int) -> None:
        heard.append(instructions)
        if instructions == 0 and heard.count(0) == 3:
            raise KeyboardInterrupt

    with Results() as results:
        with pytest.raises(KeyboardInterrupt):
            sweep(points, results, executor=Inline(watch))
        assert len(results) == 2


def test_processes_give_the_same_rows(points: list[Point]) -> None:
    with Results() as here, Results() as there:
        one = sweep(points, here)
        two = sweep(points, there, executor=LocalProcesses(2))
    assert essence(one) == essence(two)
    assert len(two) == len(points)


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (9,)


def test_processes_that_keep_dying_end_the_sweep(points: list[Point]) -> None:
    deadly = replace(points[1], description=Deadly())  # type: ignore[arg-type]
    with Results() as results, pytest.raises(VmmError, match=r"died 3 times.*pagefault"):
        sweep([deadly], results, executor=LocalProcesses(1))


def test_what_a_worker_cannot_run_is_said(points: list[Point]) -> None:
    bad = replace(points[0], description=replace(points[0].description, memory=1))
    with Results() as results, pytest.raises(BadDescription, match="memory of 1 bytes"):
        sweep([bad], results, executor=LocalProcesses(1))


def count(path: Path) -> int:
    """Rows so far; none while the file is being made."""
    if not path.exists() or not path.stat().st_size:
        return 0
    with Results(path) as results:
        return len(results)


def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken.db", tmp_path / "whole.db"
    process = subprocess.Popen(
        [sys.executable, "-m", "vmirom", *SUITE, "-o", str(broken), "--jobs", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + PATIENCE
    while count(broken) < 3:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with Results(broken, create=False) as results:
        before = results.rows()
    assert 3 <= len(before) < RUNS

    again = suites.batching(["pagefault", "mmapstorm"], quick=True)
    with Results(broken) as one, Results(whole) as other:
        for results in (one, other):
            sweep(again, results)
        assert len(one) == len(other) == RUNS
        assert one.rows()[: len(before)] == before
        assert essence(one.rows()) == essence(other.rows())

    # Nobody outlives the sweep: its session is empty.
    while True:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < end + PATIENCE
        time.sleep(0.05)
