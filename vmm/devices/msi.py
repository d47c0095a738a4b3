"""Message-signalled interrupts of a PCI function (PCI Local Bus 3.0, section 6.8.1).

The form of the capability is that with a 32-bit address and without masking. While
it is enabled the function sends a message where it would raise its wire, which stays low.
"""

from collections.abc import Callable

from vmm.core.saved import FLAG, PARTS, U8, U16, U32, BadState, Fields
from vmm.devices.lines import InterruptLine

__all__ = ["MSI_SIZE", "MsiCapability", "MsiLine"]

MSI_SIZE = 12
"""Bytes of configuration space."""

_CAPABILITY_ID = 0x05
_CONTROL, _ADDRESS, _DATA = 0, 4, 8
_ENABLE = 1 << 16
_CAPABLE_SHIFT, _ENABLED_SHIFT = 17, 20
_MOST_MESSAGES = 32


class MsiCapability:
    """The last capability of a function with `messages` interrupts, a power of two up to 32.

    `send` gets the address and data of each message. Registers are dword offsets from
    where the capability begins. Messages are stores: they leave only while `master`, the
    function's Bus Master enable, is set.
    """

    SAVED = Fields(
        {
            FLAG: "master _enabled",
            U8: "_granted",
            U32: "_address",
            U16: "_data",
            PARTS: "_lines",
        },
        wiring="_capable _send",
    )

    def __init__(self, messages: int, send: Callable[[int, int], object]) -> None:
        if messages.bit_count() != 1 or messages > _MOST_MESSAGES:
            raise ValueError(f"{messages} messages: expected a power of two up to {_MOST_MESSAGES}")
        self.master = False
        self._capable = messages.bit_length() - 1
        self._granted = 0
        self._enabled = False
        self._address = 0
        self._data = 0
        self._send = send
        self._lines: list[MsiLine] = []

    def _check_saved(self) -> None:
        """No more messages granted than asked for."""
        if self._granted > self._capable:
            raise BadState(f"2**{self._granted} messages of 2**{self._capable}")

    @property
    def enabled(self) -> bool:
        """Do messages stand in for the wires?"""
        return self._enabled

    def line(self, wire: InterruptLine) -> "MsiLine":
        """The function's next interrupt: a message, or `wire` while those are not enabled."""
        line = MsiLine(self, len(self._lines), wire)
        self._lines.append(line)
        return line

    def config_read(self, register: int) -> int:
        """The dword at 0, 4 or 8: control, address, data."""
        if register == _CONTROL:
            control = self._capable << _CAPABLE_SHIFT | self._granted << _ENABLED_SHIFT
            return _CAPABILITY_ID | control | (_ENABLE if self._enabled else 0)
        return self._address if register == _ADDRESS else self._data

    def config_write(self, register: int, value: int) -> None:
        """Store to control, address or data; what is granted is at most what was asked for."""
        if register == _ADDRESS:
            self._address = value & 0xFFFFFFFC
        elif register == _DATA:
            self._data = value & 0xFFFF
        elif register == _CONTROL:
            self._granted = min(value >> _ENABLED_SHIFT & 7, self._capable)
            self._enabled = bool(value & _ENABLE)
            for line in self._lines:
                line.reroute()

    def signal(self, number: int) -> None:
        """Send the message of an interrupt: its number is in the low bits of the data.

        With fewer messages granted than there are interrupts, they share.
        """
        if self.master:
            low = (1 << self._granted) - 1
            self._send(self._address, self._data & ~low | number & low)


class MsiLine:
    """An interrupt of a function, which its device drives as a wire."""

    SAVED = Fields(
        {FLAG: "_level"},
        wiring="_capability _number _wire",
    )

    def __init__(self, capability: MsiCapability, number: int, wire: InterruptLine) -> None:
        self._capability = capability
        self._number = number
        self._wire = wire
        self._level = False

    @property
    def level(self) -> bool:
        """Does the device ask for an interrupt?"""
        return self._level

    @level.setter
    def level(self, level: bool) -> None:
        rises = level and not self._level
        self._level = level
        if not self._capability.enabled:
            self._wire.level = level
        elif rises:
            self._capability.signal(self._number)

    def reroute(self) -> None:
        """Messages were enabled or disabled: a request that stands is not lost."""
        enabled = self._capability.enabled
        if enabled and self._wire.level:
            self._capability.signal(self._number)
        self._wire.level = self._level and not enabled
