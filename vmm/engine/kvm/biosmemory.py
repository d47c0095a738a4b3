"""A PC BIOS in the machine's memory: one image at two places, and RAM that firmware switches in.

The image ends below 4 GiB, where the processor starts, and its last 128 KiB below 1 MiB as
well, until the host bridge's attributes put RAM there. Firmware runs from that RAM, and
write-protects it when it is done.
"""

from collections.abc import Callable
from mmap import mmap

from vmi.address import PAGE_SHIFT
from vmm.core.memory import GuestMemory
from vmm.devices.pam import PamHostBridge
from vmm.engine.kvm.slots import Slot

__all__ = ["BiosMemory"]

_TOP = 1 << 32
_LOW_END = 0x100000
_LOW_SIZE = 0x20000


class BiosMemory:
    """Keeps the frames of `memory` as `bridge` says; `on_change` is told afterwards."""

    def __init__(self, image: bytes, memory: GuestMemory, on_change: Callable[[], None]) -> None:
        self._memory = memory
        self._on_change = on_change
        self._image = mmap(-1, len(image))
        self._image[:] = image
        self.bridge = PamHostBridge(self._changed)
        self._set_frames()

    def _changed(self) -> None:
        self._set_frames()
        self._on_change()

    def _set_frames(self) -> None:
        for segment in self.bridge.segments():
            first, count = segment.address >> PAGE_SHIFT, segment.size >> PAGE_SHIFT
            self._memory.set_hole(first, count, hole=not segment.reads_ram)
            self._memory.set_protected(first, count, protected=not segment.writes_ram)

    def slots(self) -> list[Slot]:
        """The image, wherever it shows now."""
        size = len(self._image)
        found = [Slot(_TOP - size, size, self._image, readonly=True)]
        start = _LOW_END - min(size, _LOW_SIZE)
        for segment in self.bridge.segments():
            if not segment.reads_ram and segment.address >= start:
                offset = size - (_LOW_END - segment.address)
                found.append(
                    Slot(segment.address, segment.size, self._image, offset, readonly=True)
                )
        return found
