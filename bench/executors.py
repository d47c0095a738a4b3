"""Where tasks run: in this process, or in several on this machine."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_end
from multiprocessing.synchronize import Event
from queue import SimpleQueue
from typing import Protocol

from bench.points import Task, run_task
from bench.record import Row
from vmm.core.errors import VmmError

__all__ = ["Executor", "Inline", "LocalProcesses", "executor_for"]

_MOST_DEATHS = 3
"""Worker processes that may die one after the other while nothing gets done."""


class Executor(Protocol):
    """Runs tasks, in any order; each row comes as soon as it is there."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Row]:
        """Yield one row a task. Raises `KeyboardInterrupt` after Ctrl-C."""


class Inline:
    """One after the other, here. `watch` hears the instructions of each run."""

    def __init__(self, watch: Callable[[int], None] | None = None) -> None:
        self._watch = watch

    def run(self, tasks: Sequence[Task]) -> Iterator[Row]:
        """Yield one row a task, in order."""
        for task in tasks:
            yield run_task(task, self._watch)


class LocalProcesses:
    """`jobs` processes on this machine. One that dies is replaced and its task run again."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        # A fork would copy threads' locks, of which progress bars and notebooks have many.
        self._context = multiprocessing.get_context("spawn")

    def run(self, tasks: Sequence[Task]) -> Iterator[Row]:
        """Yield one row a task. Raises `VmmError` when worker processes keep dying."""
        left = list(tasks)
        deaths = 0
        while left:
            before = len(left)
            try:
                yield from self._in_one_pool(left)
            except BrokenProcessPool:
                deaths = deaths + 1 if len(left) == before else 1
                if deaths == _MOST_DEATHS:
                    raise VmmError(
                        f"worker processes died {deaths} times, at the latest with "
                        f"{left[0].point.case.label}: out of memory?"
                    ) from None

    def _in_one_pool(self, left: list[Task]) -> Iterator[Row]:
        """Take what is done out of `left`; in order, as far as it goes."""
        stop = self._context.Event()
        pool = ProcessPoolExecutor(
            min(self._jobs, len(left)), self._context, initializer=_prepare, initargs=(stop,)
        )
        try:
            # Not by futures.wait: it holds the lock of every future for a moment, and a Ctrl-C
            # just then leaves them held, with the pool waiting for them for ever.
            done: SimpleQueue[Future[Row]] = SimpleQueue()
            waiting: dict[Future[Row], Task] = {}
            for task in left:
                future = pool.submit(_work, task)
                waiting[future] = task
                future.add_done_callback(done.put)
            while waiting:
                future = done.get()
                task = waiting.pop(future)
                row = future.result()
                left.remove(task)
                yield row
        finally:
            # What is still going on ends soon: with Ctrl-C or an error nobody wants it.
            stop.set()
            pool.shutdown(cancel_futures=True)


def executor_for(jobs: int, watch: Callable[[int], None] | None = None) -> Executor:
    """Run in this process for one job, in several for more."""
    return Inline(watch) if jobs == 1 else LocalProcesses(jobs)


# ---- in the worker process

_stop: Event | None = None


def _prepare(stop: Event) -> None:
    """Ctrl-C is the parent's to hear, and nobody outlives it."""
    global _stop  # noqa: PLW0603 - set once a process, before its first task
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - this is a child

    def leave() -> None:
        wait_for_end([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def _work(task: Task) -> Row:
    """Run a task until the parent has had enough."""

    def watch(_: int) -> None:
        if _stop is not None and _stop.is_set():
            raise KeyboardInterrupt

    return run_task(task, watch)
