"""Time on KVM: the host's, less nothing, plus what idle guests skip."""

import time

__all__ = ["HostClock"]


class HostClock:
    """Nanoseconds since the machine was made.

    The processor runs in real time, and a guest can compare (with its time stamp counter),
    so its devices run in the same time. Only a guest that halts is not waited with:
    `skip` jumps to what wakes it.
    """

    def __init__(self) -> None:
        self._start = time.monotonic_ns()

    def now(self) -> int:
        """Virtual time."""
        return time.monotonic_ns() - self._start

    def skip(self, ns: int) -> None:
        """Let time jump ahead."""
        self._start -= max(0, ns)
