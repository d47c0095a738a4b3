"""A stretch of guest memory for a device to use, which it sees as a block from 0 on."""

from vmi.address import GuestPhysical
from vmm.core.memory import GuestMemory
from vmm.core.saved import Fields

__all__ = ["GuestBlock"]


class GuestBlock:
    """`size` bytes of `memory` from guest-physical `start` on; a `vmm.core.bus.Block`."""

    SAVED = Fields(wiring="_memory", elsewhere="_start _size")

    def __init__(self, memory: GuestMemory, start: GuestPhysical, size: int) -> None:
        self._memory = memory
        self._start = start
        self._size = size

    @property
    def start(self) -> GuestPhysical:
        """Where it begins."""
        return self._start

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the block; raises `IndexError` for some that are not in it."""
        self._check(offset, size)
        return bytes(self._memory.read(self._start + offset, size))

    def write(self, offset: int, data: bytes) -> None:
        """Store to the block; raises `IndexError` for what does not fall into it."""
        self._check(offset, len(data))
        self._memory.write(self._start + offset, data)

    def _check(self, offset: int, size: int) -> None:
        if not 0 <= offset <= offset + size <= self._size:
            raise IndexError(f"bytes {offset}-{offset + size} of a block of {self._size}")
