"""Turns single bytes into lines, so that a terminal is not written to for each character."""

from collections.abc import Callable

from vmm.core.saved import Bytes, Fields

__all__ = ["LineBatch"]


class LineBatch:
    """Collects bytes; `sink` gets whole lines with their end, and the rest on `flush`."""

    SAVED = Fields(
        {Bytes(most=1 << 20): "_line"},
        wiring="_sink",
    )

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._line = bytearray()

    def write(self, data: bytes) -> None:
        """Take bytes; a newline hands the line on."""
        self._line.extend(data)
        end = self._line.rfind(b"\n") + 1
        if end:
            ready = bytes(self._line[:end])
            del self._line[:end]
            self._sink(ready)

    def flush(self) -> None:
        """Hand on what has no end yet: a prompt, or the last words."""
        if self._line:
            ready = bytes(self._line)
            self._line.clear()
            self._sink(ready)
