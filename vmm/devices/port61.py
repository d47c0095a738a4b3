"""System control port B, 0x61: the speaker's gate and three things to read (IBM PC AT)."""

from vmi.address import Port
from vmm.core.saved import ARRAY, Fields
from vmm.devices.bytewide import ByteWideDevice
from vmm.devices.pit import Pit

__all__ = ["CONTROL_PORT_B", "ControlPortB"]

CONTROL_PORT_B = Port(0x61)

_GATE = 0x01
_WRITABLE = 0x0F
"""Gate, speaker data, and the two parity check enables, which nothing depends on."""
_REFRESH = 0x10
_OUTPUT = 0x20


class ControlPortB(ByteWideDevice):
    """Bit 0 is channel 2's GATE, bit 4 the memory refresh, bit 5 channel 2's output."""

    SAVED = Fields(
        {ARRAY: "_shared"},
        wiring="_pit",
    )

    shared_size = 8
    """A port filter sees the bits that were written, in the first byte."""

    def __init__(self, pit: Pit) -> None:
        self._pit = pit
        self._shared = memoryview(bytearray(self.shared_size))

    def share(self, view: memoryview) -> None:
        """Keep what a port filter sees in `view` from now on."""
        view[:] = self._shared
        self._shared = view

    def read_byte(self, port: int) -> int:
        """What was written, the refresh toggle and the speaker channel's output."""
        if port != CONTROL_PORT_B:
            return 0xFF
        refresh = _REFRESH if self._pit.refresh_toggle else 0
        return self._shared[0] | refresh | (_OUTPUT if self._pit.speaker_output else 0)

    def write_byte(self, port: int, value: int) -> None:
        """Set gate and enables."""
        if port == CONTROL_PORT_B:
            self._shared[0] = value & _WRITABLE
            self._pit.set_speaker_gate(high=bool(value & _GATE))
