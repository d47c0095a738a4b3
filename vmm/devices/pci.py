"""The PCI host bridge: configuration mechanism 1 (PCI Local Bus 3.0, section 3.2.2.3.2)."""

import struct
from typing import Protocol

from vmi.address import Port
from vmm.core.saved import BY_KEY, U32, Fields

__all__ = [
    "CONFIG_ADDRESS",
    "CONFIG_DATA",
    "CONFIG_PORTS",
    "PciFunction",
    "PciHost",
    "identity_registers",
]

CONFIG_ADDRESS = Port(0xCF8)
CONFIG_DATA = Port(0xCFC)
CONFIG_PORTS = 8

_ENABLE = 1 << 31
_NO_DEVICE = 0xFFFFFFFF


class PciFunction(Protocol):
    """One function on the bus. Registers are dword offsets into configuration space."""

    def config_read(self, register: int) -> int:
        """The dword at `register`."""
        ...

    def config_write(self, register: int, value: int) -> None:
        """Store to the dword at `register`; read-only bits keep their value."""
        ...

    def memory_read(self, address: int, size: int) -> bytes | None:
        """Bus memory, if the function decodes the address."""
        ...


class PciHost:
    """Bus 0 with up to 32 devices of one function each."""

    SAVED = Fields(
        {U32: "_address", BY_KEY: "_functions"},
    )

    def __init__(self) -> None:
        self._functions: dict[int, PciFunction] = {}
        self._address = 0

    def plug(self, device: int, function: PciFunction) -> None:
        """Put a function at a device number, 0-31."""
        if not 0 <= device < 32 or device in self._functions:
            raise ValueError(f"PCI device number {device} is taken or not 0-31")
        self._functions[device] = function

    def _selected(self) -> tuple[PciFunction | None, int]:
        if not self._address & _ENABLE or (self._address >> 16) & 0xFF or (self._address >> 8) & 7:
            return None, 0
        return self._functions.get((self._address >> 11) & 31), self._address & 0xFC

    def read(self, port: int, size: int) -> int:
        """A port read of the address or data register."""
        if port < CONFIG_DATA:
            return self._address if (port, size) == (CONFIG_ADDRESS, 4) else (1 << (8 * size)) - 1
        function, register = self._selected()
        value = _NO_DEVICE if function is None else function.config_read(register)
        return value >> (8 * (port & 3)) & ((1 << (8 * size)) - 1)

    def write(self, port: int, size: int, value: int) -> None:
        """A port write of the address or data register."""
        if port < CONFIG_DATA:
            if (port, size) == (CONFIG_ADDRESS, 4):
                self._address = value
            return
        function, register = self._selected()
        if function is None:
            return
        shift = 8 * (port & 3)
        mask = ((1 << (8 * size)) - 1) << shift
        old = function.config_read(register)
        function.config_write(register, (old & ~mask) | ((value << shift) & mask))

    def memory_read(self, address: int, size: int) -> bytes:
        """Bus memory as the CPU would see it; all ones where nobody decodes."""
        for function in self._functions.values():
            data = function.memory_read(address, size)
            if data is not None:
                return data
        return b"\xff" * size


def identity_registers(vendor: int, device: int, class_code: tuple[int, int, int]) -> bytearray:
    """256 bytes of configuration space with the read-only header filled in."""
    space = bytearray(256)
    struct.pack_into("<HH", space, 0, vendor, device)
    base, subclass, interface = class_code
    space[9:12] = bytes((interface, subclass, base))
    return space
