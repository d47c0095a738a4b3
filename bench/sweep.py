"""A sweep: points times repetitions, each run once, whatever happens in between."""

from collections.abc import Callable, Sequence

from bench.build import this_build
from bench.executors import Executor, Inline
from bench.points import Point, Task
from bench.record import Row
from bench.store import Results
from vmm.core.errors import VmmError

__all__ = ["sweep"]


def sweep(
    points: Sequence[Point],
    results: Results,
    *,
    repetitions: int = 1,
    executor: Executor | None = None,
    progress: Callable[[int, int, str], None] = lambda _done, _total, _label: None,
) -> list[Row]:
    """Run what `results` does not have yet, and answer the rows of all points.

    Repetitions are interleaved: every point once, then every point again, so that a
    host that slows down slows all of them. A row is kept as soon as it is there, so a sweep
    that was stopped or killed goes on where it was. `progress` is told what is done of
    how much, and what was done last. The rows come in the order of the points, the
    repetitions of a point together.

    Raises `CountsDiffer` when two repetitions count differently, `VmmError` when a worker
    runs other code, and `KeyboardInterrupt` after Ctrl-C.
    """
    executor = Inline() if executor is None else executor
    build = this_build()
    points = list({point.case: point for point in points}.values())
    tasks = [Task(point, repetition) for repetition in range(repetitions) for point in points]
    left = [task for task in tasks if task.key not in results]
    done = len(tasks) - len(left)
    progress(done, len(tasks), "")
    for row in executor.run(left):
        if (row.build.code, row.build.core) != (build.code, build.core):
            raise VmmError(
                f"a worker runs vmirom {row.build.label}, {row.build.core}; expected "
                f"{build.label}, {build.core}, as here"
            )
        results.add(row)
        done += 1
        progress(done, len(tasks), row.case.label)
    found = {row.key: row for row in results.rows()}
    return [
        found[Task(point, repetition).key] for point in points for repetition in range(repetitions)
    ]
