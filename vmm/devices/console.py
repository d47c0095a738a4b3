"""The debug port: one byte written is one character of the console (QEMU isa-debugcon)."""

from collections.abc import Callable

from vmi.address import Port

__all__ = ["DEBUG_PORT", "DebugConsole"]

DEBUG_PORT = Port(0x402)
_READBACK = 0xE9
"""What a guest reads to find out that the port is there."""


class DebugConsole:
    """Collects what the guest prints; `echo` is called with each whole line."""

    def __init__(self, echo: Callable[[str], None] | None = None) -> None:
        self._lines: list[str] = []
        self._line = bytearray()
        self._echo = echo

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
        self._lines.append(line)
        if self._echo is not None:
            self._echo(line)

    @property
    def text(self) -> str:
        """Everything printed so far."""
        return "\n".join([*self._lines, self._line.decode("latin-1")])
