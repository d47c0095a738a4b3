"""System control port A, 0x92: fast reset and the fast A20 gate (IBM PS/2)."""

from collections.abc import Callable

from vmi.address import Port
from vmm.core.saved import U8, Fields
from vmm.devices.bytewide import ByteWideDevice

__all__ = ["CONTROL_PORT_A", "ControlPortA"]

CONTROL_PORT_A = Port(0x92)

_RESET = 0x01
_A20 = 0x02


class ControlPortA(ByteWideDevice):
    """`on_reset` is called with each 0-to-1 of bit 0.

    Address line 20 is always enabled in this machine; bit 1 only remembers what
    was asked of it.
    """

    SAVED = Fields(
        {U8: "_bits"},
        wiring="_on_reset",
    )

    def __init__(self, on_reset: Callable[[str], None]) -> None:
        self._on_reset = on_reset
        self._bits = _A20

    def read_byte(self, port: int) -> int:
        """What was written."""
        return self._bits if port == CONTROL_PORT_A else 0xFF

    def write_byte(self, port: int, value: int) -> None:
        """Switch A20, maybe reset."""
        if port != CONTROL_PORT_A:
            return
        reset = value & ~self._bits & _RESET
        self._bits = value & (_A20 | _RESET)
        if reset:
            self._on_reset("port 0x92")
