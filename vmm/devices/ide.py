"""An IDE channel at its legacy ports, PIO only (ATA/ATAPI-6; Intel 82371AB for the ports).

Two drives share the channel: both take what is written to the command block, the
selected one answers and drives the interrupt.
"""

from vmi.address import Port
from vmm.core.saved import PARTS, U8, BadState, Fields
from vmm.devices.idedrive import IdeDrive
from vmm.devices.lines import InterruptLine

__all__ = [
    "IDE_CONTROL_COUNT",
    "IDE_PORT_COUNT",
    "PRIMARY_CONTROL",
    "PRIMARY_PORTS",
    "SECONDARY_CONTROL",
    "SECONDARY_PORTS",
    "IdeChannel",
]

PRIMARY_PORTS, PRIMARY_CONTROL = Port(0x1F0), Port(0x3F6)
"""On IRQ 14."""
SECONDARY_PORTS, SECONDARY_CONTROL = Port(0x170), Port(0x376)
"""On IRQ 15."""
IDE_PORT_COUNT = 8
IDE_CONTROL_COUNT = 1

_DATA, _FEATURES, _COUNT, _LOW, _MID, _HIGH, _DEVICE, _COMMAND = range(8)
_ERROR, _STATUS = _FEATURES, _COMMAND
_SECOND_DRIVE = 0x10
_DEVICE_ONES = 0xA0
"""Bits 7 and 5 of the device register are obsolete and read as ones."""
_SHOW_PREVIOUS, _SOFT_RESET, _NO_INTERRUPT = 0x80, 0x04, 0x02
_DIAGNOSTIC = 0x90
_NOBODY = 0xFF
_FLOATING_STATUS = 0x7F
"""Nobody drives the bus; a resistor pulls bit 7 down, so that it does not look busy."""
_BUSY = 0x80


class IdeChannel:
    """Command block at `base`, device control at `control`; none is an absent drive."""

    SAVED = Fields(
        {PARTS: "_drives", U8: "_selected _control"},
        wiring="_line _base _control_port",
        derived="_present",
    )

    def __init__(
        self,
        line: InterruptLine,
        base: int,
        control: int,
        first: IdeDrive | None = None,
        second: IdeDrive | None = None,
    ) -> None:
        self._line = line
        self._base = base
        self._control_port = control
        self._drives = (first, second)
        self._present = [drive for drive in self._drives if drive is not None]
        self._selected = 0
        self._control = 0

    def _check_saved(self) -> None:
        """One of two drives."""
        if self._selected not in {0, 1}:
            raise BadState(f"drive {self._selected}: expected 0 or 1")

    @property
    def drives(self) -> tuple[IdeDrive | None, IdeDrive | None]:
        """Device 0 and device 1."""
        return self._drives

    @property
    def ports(self) -> list[int]:
        """Command block and device control."""
        return [*range(self._base, self._base + IDE_PORT_COUNT), self._control_port]

    @property
    def selected(self) -> int:
        """Which of them answers."""
        return self._selected

    @property
    def control(self) -> int:
        """The device control register."""
        return self._control

    @property
    def level(self) -> bool:
        """The interrupt line."""
        return self._line.level

    @level.setter
    def level(self, level: bool) -> None:
        self._line.level = level

    def restore(self, selected: int, control: int) -> None:
        """Go on from these two, and from the drives as they are."""
        self._selected, self._control = selected, control
        self._settle()

    @property
    def _drive(self) -> IdeDrive | None:
        return self._drives[self._selected]

    def read(self, port: int, size: int) -> int:
        """The data port at any size, a register otherwise."""
        if port == self._base:
            return self._read_data(size)
        value = 0
        for i in range(size):
            value |= self._read_register(port + i) << (8 * i)
        return value

    def write(self, port: int, size: int, value: int) -> None:
        """The data port at any size, a register otherwise."""
        if port == self._base:
            if self._drive is not None:
                self._drive.write_data(size, value)
                self._settle()
            return
        for i in range(size):
            self._write_register(port + i, value >> (8 * i) & 0xFF)
        self._settle()

    def _read_data(self, size: int) -> int:
        if self._drive is None:
            return (1 << (8 * size)) - 1
        value = self._drive.read_data(size)
        self._settle()
        return value

    def _read_register(self, port: int) -> int:
        if not self._present:
            return _FLOATING_STATUS if self._is_status(port) else _NOBODY
        if self._is_status(port):
            return self._read_status(alternate=port == self._control_port)
        # For an absent second drive the first one shows its own registers.
        drive = self._drive or self._present[0]
        block = drive.registers
        previous = self._control & _SHOW_PREVIOUS
        values = {
            _ERROR: drive.error,
            _COUNT: block.previous_count if previous else block.count,
            _LOW: block.previous_low if previous else block.low,
            _MID: block.previous_mid if previous else block.mid,
            _HIGH: block.previous_high if previous else block.high,
            _DEVICE: block.device & ~_SECOND_DRIVE | self._selected * _SECOND_DRIVE | _DEVICE_ONES,
        }
        return values.get(port - self._base, _NOBODY)

    def _is_status(self, port: int) -> bool:
        return port in {self._control_port, self._base + _STATUS}

    def _read_status(self, *, alternate: bool) -> int:
        """Status; the one in the command block also takes the interrupt back."""
        if self._control & _SOFT_RESET:
            return _BUSY
        drive = self._drive
        if drive is None:
            return 0
        if not alternate:
            drive.interrupt = False
            self._settle()
        return drive.status

    def _write_register(self, port: int, value: int) -> None:
        if port == self._control_port:
            self._set_control(value)
            return
        self._control &= ~_SHOW_PREVIOUS
        register = port - self._base
        if register == _COMMAND:
            self._execute(value)
        else:
            if register == _DEVICE:
                self._selected = 1 if value & _SECOND_DRIVE else 0
            for drive in self._present:
                _store(drive, register, value)

    def _execute(self, command: int) -> None:
        if self._control & _SOFT_RESET:
            return
        if command == _DIAGNOSTIC:
            # Both drives run it; the first one reports.
            self._selected = 0
            for drive in self._present:
                drive.execute(command)
                drive.interrupt = drive is self._drive
        elif self._drive is not None:
            self._drive.execute(command)

    def _set_control(self, value: int) -> None:
        if value & _SOFT_RESET and not self._control & _SOFT_RESET:
            self._selected = 0
            for drive in self._present:
                drive.reset()
        self._control = value

    def _settle(self) -> None:
        """The selected drive drives the line, unless nIEN lets it float."""
        drive = self._drive
        enabled = not self._control & _NO_INTERRUPT
        self._line.level = enabled and drive is not None and drive.interrupt


def _store(drive: IdeDrive, register: int, value: int) -> None:
    block = drive.registers
    if register == _FEATURES:
        block.features = value
    elif register == _COUNT:
        block.previous_count, block.count = block.count, value
    elif register == _LOW:
        block.previous_low, block.low = block.low, value
    elif register == _MID:
        block.previous_mid, block.mid = block.mid, value
    elif register == _HIGH:
        block.previous_high, block.high = block.high, value
    elif register == _DEVICE:
        block.device = value
