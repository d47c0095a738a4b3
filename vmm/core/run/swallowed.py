"""Errors where the core cannot raise: they end the run as the engine's failure.

Functions that the engine calls, and some small ones on the hot path, cannot raise (`noexcept`).
Cython tells Python of an error in such a function and goes on with 0: guest memory is safe
then, but what the guest does from there on means nothing. So while a machine runs, what is told of
the core stops it.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vmm.core.errors import EngineFailure

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["stopping_at_errors"]

_CORE = "vmm.core."
_lock = threading.Lock()
_running: dict[int, list[Callable[[EngineFailure], None]]] = {}
"""By thread, innermost last: how to end its run."""
_before: list[Callable[[Any], Any]] = []
"""Who was told before us."""


def _told(about: "UnraisableHookArgs") -> None:
    """Cython names the function, as in 'vmm.core.code.strings.StringSweep.physical'."""
    ends = _running.get(threading.get_ident())
    if ends and isinstance(about.object, str) and about.object.startswith(_CORE):
        ends[-1](EngineFailure(f"{about.object}: {about.exc_type.__name__}: {about.exc_value}"))
    else:
        _before[0](about)


@contextmanager
def stopping_at_errors(end: Callable[[EngineFailure], None]) -> Iterator[None]:
    """In this block, by this thread, give errors that the core cannot raise to `end`."""
    thread = threading.get_ident()
    with _lock:
        if not _running:
            _before[:] = [sys.unraisablehook]
            sys.unraisablehook = _told
        _running.setdefault(thread, []).append(end)
    try:
        yield
    finally:
        with _lock:
            _running[thread].pop()
            if not _running[thread]:
                del _running[thread]
            if not _running:
                sys.unraisablehook = _before[0]
