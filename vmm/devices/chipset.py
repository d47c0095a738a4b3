"""PCI functions that guests look for on a PC: Intel's 440FX bridge and PIIX3 IDE.

Linux trusts configuration space only if it finds a host bridge there, and finds
disks by the IDE function (82371SB data sheet, section 2.3).
"""

import struct

from vmm.devices.pci import identity_registers

__all__ = ["HostBridge", "IdeFunction"]

_INTEL = 0x8086
_COMMAND = 0x04
_SPACES = 0x0003
"""I/O and memory space enables."""
_IDE_TIMING = 0x40
_DECODE_BOTH = 0x80008000
"""Both channels decode their legacy ports (IDETIM, bit 15 of each)."""


class HostBridge:
    """8086:1237, a host bridge without registers that matter."""

    def __init__(self) -> None:
        self._space = identity_registers(_INTEL, 0x1237, (0x06, 0x00, 0x00))

    def config_read(self, register: int) -> int:
        """A dword of configuration space."""
        return _dword(self._space, register)

    def config_write(self, _register: int, _value: int) -> None:
        """Nothing can be changed."""

    def memory_read(self, _address: int, _size: int) -> bytes | None:
        """It decodes no memory of its own."""
        return None


class IdeFunction:
    """8086:7010, both channels at their legacy ports, without bus mastering.

    The channels themselves are `IdeChannel`s on the port bus.
    """

    def __init__(self) -> None:
        self._space = identity_registers(_INTEL, 0x7010, (0x01, 0x01, 0x00))
        struct.pack_into("<I", self._space, _COMMAND, 0x0001)
        struct.pack_into("<I", self._space, _IDE_TIMING, _DECODE_BOTH)

    def config_read(self, register: int) -> int:
        """A dword of configuration space."""
        return _dword(self._space, register)

    def config_write(self, register: int, value: int) -> None:
        """Timings and the space enables are kept; no base address can be set."""
        if register == _COMMAND:
            struct.pack_into("<I", self._space, register, value & _SPACES)
        elif register == _IDE_TIMING:
            struct.pack_into("<I", self._space, register, value)

    def memory_read(self, _address: int, _size: int) -> bytes | None:
        """It decodes no memory."""
        return None


def _dword(space: bytearray, register: int) -> int:
    return int(struct.unpack_from("<I", space, register)[0])
