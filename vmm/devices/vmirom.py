"""The VMI ROM device: a PCI memory controller whose only content is its expansion ROM."""

import struct

from vmi.header import VMI_DEVICE, VMI_VENDOR
from vmm.core.saved import ARRAY, Fields
from vmm.devices.pci import identity_registers

__all__ = ["VmiRomDevice"]

_CLASS = (0x05, 0x80, 0x00)
_COMMAND = 0x04
_ROM_BAR = 0x30
_MEMORY_SPACE = 0x2
_ROM_ENABLE = 0x1
_SMALLEST_BAR = 2048
"""The address bits of an expansion ROM BAR start at bit 11 (PCI 3.0, section 6.2.5.2)."""


class VmiRomDevice:
    """15AD:0801 with a ROM BAR as large as the next power of two."""

    SAVED = Fields(
        {ARRAY: "_space"},
        wiring="_size _rom",
    )

    def __init__(self, image: bytes) -> None:
        self._size = max(_SMALLEST_BAR, 1 << (len(image) - 1).bit_length())
        self._rom = image.ljust(self._size, b"\xff")
        self._space = identity_registers(VMI_VENDOR, VMI_DEVICE, _CLASS)

    def config_read(self, register: int) -> int:
        """A dword of configuration space."""
        value: int = struct.unpack_from("<I", self._space, register)[0]
        return value

    def config_write(self, register: int, value: int) -> None:
        """Only the command register and the ROM BAR can be written."""
        if register == _COMMAND:
            mask = _MEMORY_SPACE
        elif register == _ROM_BAR:
            mask = (0xFFFFFFFF & ~(self._size - 1)) | _ROM_ENABLE
        else:
            return
        struct.pack_into("<I", self._space, register, value & mask)

    def memory_read(self, address: int, size: int) -> bytes | None:
        """The ROM, while memory space and the BAR are enabled."""
        bar = self.config_read(_ROM_BAR)
        if not bar & _ROM_ENABLE or not self.config_read(_COMMAND) & _MEMORY_SPACE:
            return None
        offset = address - (bar & ~_ROM_ENABLE)
        if not 0 <= offset <= self._size - size:
            return None
        return self._rom[offset : offset + size]
