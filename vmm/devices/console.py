"""The debug port: one byte written is one character of the console (QEMU isa-debugcon)."""

from collections.abc import Callable

from vmi.address import Port
from vmm.core.saved import Bytes, Fields

__all__ = ["DEBUG_PORT", "DebugConsole"]

DEBUG_PORT = Port(0x402)
_READBACK = 0xE9
"""What a guest reads to find out that the port is there."""


class DebugConsole:
    """Cuts what the guest prints into lines and hands them on without their end."""

    SAVED = Fields(
        {Bytes(most=1 << 20): "_line"},
        wiring="_on_line",
    )

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._line = bytearray()
        self._on_line = on_line

    def read(self, _port: int, _size: int) -> int:
        """Identify the port."""
        return _READBACK

    def write(self, _port: int, _size: int, value: int) -> None:
        """Print a character."""
        if value & 0xFF != ord("\n"):
            self._line.append(value & 0xFF)
            return
        line = self._line.decode("latin-1")
        self._line.clear()
        self._on_line(line)

    @property
    def unfinished(self) -> str:
        """The line that has no end yet."""
        return self._line.decode("latin-1")
