"""The host thread that a virtual CPU is created in, bound to and run in."""

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["CpuThread"]

_Result = TypeVar("_Result")
_Job = tuple[Callable[[], Any], "Future[Any]"]


def _work(jobs: "SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        action, future = job
        try:
            future.set_result(action())
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the result
            future.set_exception(error)
        del job, action, future


class CpuThread:
    """Runs what it is given, one after the other, until it is closed or forgotten."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.thread = threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True)
        self.thread.start()
        self._end = weakref.finalize(self, self._jobs.put, None)

    def start(self, action: Callable[[], _Result]) -> "Future[_Result]":
        """Have `action` run there; answers at once with what its result will be."""
        future: Future[_Result] = Future()
        self._jobs.put((action, future))
        return future

    def call(self, action: Callable[[], _Result]) -> _Result:
        """Run `action` there and answer its result, or raise what it raised."""
        if threading.current_thread() is self.thread:
            return action()
        return self.start(action).result()

    def close(self) -> None:
        """End the thread, once what it was given is done."""
        self._end()
        if threading.current_thread() is not self.thread:
            self.thread.join()
