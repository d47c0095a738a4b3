"""Memory attributes of the 440FX: what lies from 0xC0000 to 1 MiB (82441FX data sheet, PAM0-6).

Seven registers at 0x59 give each segment two bits: 1 for reads from RAM, 2 for writes to RAM.
Firmware copies itself into the RAM and, when it is done, takes the write bits away.
"""

from collections.abc import Callable
from dataclasses import dataclass

from vmm.devices.chipset import HostBridge

__all__ = ["PamHostBridge", "PamSegment"]

_FIRST_REGISTER = 0x59
_REGISTERS = 7
_READ, _WRITE = 1, 2
_START = 0xC0000
_SEGMENT = 0x4000
_BIOS_START, _BIOS_SIZE = 0xF0000, 0x10000
_FIRST_SEGMENTS = 12


@dataclass(frozen=True, slots=True)
class PamSegment:
    """Guest-physical memory that is switched as one, and whether RAM answers reads and writes."""

    address: int
    size: int
    reads_ram: bool
    writes_ram: bool


class PamHostBridge(HostBridge):
    """The host bridge with its memory attributes; `on_change` is told when they change."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        super().__init__()
        self._on_change = on_change

    def config_write(self, register: int, value: int) -> None:
        """The attribute registers can be changed, and nothing else."""
        changed = False
        for i, byte in enumerate(value.to_bytes(4, "little")):
            at = register + i
            if _FIRST_REGISTER <= at < _FIRST_REGISTER + _REGISTERS and self._space[at] != byte:
                self._space[at] = byte
                changed = True
        if changed:
            self._on_change()

    def segments(self) -> list[PamSegment]:
        """What lies where now."""
        bits = self._space[_FIRST_REGISTER] >> 4
        found = [_segment(_BIOS_START, _BIOS_SIZE, bits)]
        for i in range(_FIRST_SEGMENTS):
            bits = self._space[_FIRST_REGISTER + 1 + i // 2] >> (4 * (i % 2))
            found.append(_segment(_START + i * _SEGMENT, _SEGMENT, bits))
        return sorted(found, key=lambda segment: segment.address)


def _segment(address: int, size: int, bits: int) -> PamSegment:
    return PamSegment(address, size, bool(bits & _READ), bool(bits & _WRITE))
