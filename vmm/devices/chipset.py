"""PCI functions that guests look for on a PC: Intel's 440FX bridge and PIIX3 IDE.

Linux trusts configuration space only if it finds a host bridge there, and finds
disks by the IDE function (82371SB data sheet, section 2.3).
"""

import struct

from vmm.core.saved import ARRAY, PART, Fields
from vmm.devices.msi import MSI_SIZE, MsiCapability
from vmm.devices.pci import identity_registers

__all__ = ["HostBridge", "IdeFunction"]

_INTEL = 0x8086
_COMMAND = 0x04
_SPACES = 0x0003
"""I/O and memory space enables."""
_BUS_MASTER = 0x0004
_HAS_CAPABILITIES = 0x0010 << 16
"""In the status register, the upper half of the dword at 4."""
_CAPABILITIES = 0x34
_MSI = 0x80
_IDE_TIMING = 0x40
_DECODE_BOTH = 0x80008000
"""Both channels decode their legacy ports (IDETIM, bit 15 of each)."""


class HostBridge:
    """8086:1237, a host bridge without registers that matter."""

    SAVED = Fields(
        {ARRAY: "_space"},
    )

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

    The channels themselves are `IdeChannel`s on the port bus. With `msi`, which the
    82371SB has not, a guest can have their interrupts as messages.
    """

    SAVED = Fields(
        {ARRAY: "_space", PART: "_msi"},
    )

    def __init__(self, msi: MsiCapability | None = None) -> None:
        self._msi = msi
        self._space = identity_registers(_INTEL, 0x7010, (0x01, 0x01, 0x00))
        struct.pack_into("<I", self._space, _COMMAND, 0x0001)
        if msi is not None:
            struct.pack_into("<I", self._space, _COMMAND, _HAS_CAPABILITIES | 0x0001)
            self._space[_CAPABILITIES] = _MSI
        struct.pack_into("<I", self._space, _IDE_TIMING, _DECODE_BOTH)

    def config_read(self, register: int) -> int:
        """A dword of configuration space."""
        if self._msi is not None and _MSI <= register < _MSI + MSI_SIZE:
            return self._msi.config_read(register - _MSI)
        return _dword(self._space, register)

    def config_write(self, register: int, value: int) -> None:
        """Timings, the enables and MSI are kept; no base address can be set."""
        if self._msi is not None and _MSI <= register < _MSI + MSI_SIZE:
            self._msi.config_write(register - _MSI, value)
        elif register == _COMMAND and self._msi is not None:
            self._msi.master = bool(value & _BUS_MASTER)
            kept = value & (_SPACES | _BUS_MASTER)
            struct.pack_into("<I", self._space, register, _HAS_CAPABILITIES | kept)
        elif register == _COMMAND:
            struct.pack_into("<I", self._space, register, value & _SPACES)
        elif register == _IDE_TIMING:
            struct.pack_into("<I", self._space, register, value)

    def memory_read(self, _address: int, _size: int) -> bytes | None:
        """It decodes no memory."""
        return None


def _dword(space: bytearray, register: int) -> int:
    return int(struct.unpack_from("<I", space, register)[0])
