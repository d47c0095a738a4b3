"""A limit on the host's time that a run takes, for any engine."""

import time
from collections.abc import Callable

from vmm.core.errors import TimeUp

__all__ = ["limited"]


def limited(
    watch: Callable[[int], None] | None, seconds: float | None
) -> Callable[[int], None] | None:
    """A `watch` that raises `TimeUp` once so many seconds have passed since now."""
    if seconds is None:
        return watch
    end = time.monotonic() + seconds

    def look(instructions: int) -> None:
        if watch is not None:
            watch(instructions)
        if time.monotonic() >= end:
            raise TimeUp(f"{seconds:g} seconds have passed")

    return look
