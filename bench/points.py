"""What a suite runs: a case together with all that is needed to run it, in any process."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from bench.build import this_build
from bench.record import Case, Counts, Row, row_key
from bench.tcg import QEMU_ENGINE, boot_in_qemu
from vmm.core.errors import EngineFailure
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription, Run

__all__ = ["Point", "Task", "run_task"]


@dataclass(frozen=True, slots=True)
class Point:
    """One place of a sweep. Pickles, so that another process or machine can run it.

    `disk` is the image of the first disk, empty for none; `places` is how many of the
    most frequent places are kept, `measures` what else stands in the row.
    """

    case: Case
    description: MachineDescription
    disk: bytes = b""
    places: int = 0
    measures: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Task:
    """One repetition of a point."""

    point: Point
    repetition: int

    @property
    def key(self) -> str:
        """The key of the row that it makes, run by this code."""
        return row_key(self.point.case, this_build(), self.repetition)


def run_task(task: Task, watch: Callable[[int], None] | None = None) -> Row:
    """Run it here. `watch` is told the instructions so far.

    Only the run is timed, not the making of the machine. Raises `KeyboardInterrupt` when
    `watch` did, `BadDescription` for what cannot be run, and `EngineFailure`.
    """
    point = task.point
    started = datetime.now(UTC)
    if point.case.engine == QEMU_ENGINE:
        outcome, cpu, wall = boot_in_qemu(point.description)
        counts = None
    else:
        run, cpu, wall = _timed(point, watch)
        outcome, counts = run.outcome, Counts.of(run, point.places)
    if outcome.kind is OutcomeKind.INTERRUPTED:
        raise KeyboardInterrupt
    if outcome.kind is OutcomeKind.ENGINE_FAILURE:
        raise EngineFailure(f"{point.case.label}: {outcome.detail}")
    return Row(
        case=point.case,
        build=this_build(),
        repetition=task.repetition,
        outcome=outcome.kind,
        detail=outcome.detail,
        counts=counts,
        cpu_seconds=cpu,
        wall_seconds=wall,
        started_at=started,
        measures=point.measures,
    )


def _timed(point: Point, watch: Callable[[int], None] | None) -> tuple[Run, float, float]:
    """The run, with its seconds of this thread's CPU time and on the clock."""
    with tempfile.NamedTemporaryFile() as disk:
        description = point.description
        if point.disk:
            disk.write(point.disk)
            disk.flush()
            description = replace(description, disk=Path(disk.name))
        machine = Machine(description)
        cpu, wall = time.thread_time(), time.perf_counter()
        run = machine.run(watch)
        return run, time.thread_time() - cpu, time.perf_counter() - wall
