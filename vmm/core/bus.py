"""The boundary between core and devices: ports, memory ranges, an interrupt line, a clock.

This is all that a device sees of the core. Crossing it is a heavy exit.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from vmi.address import PAGE_MASK, PAGE_SHIFT, GuestPhysical, Port

__all__ = [
    "Block",
    "InterruptController",
    "LendsItself",
    "MemoryBus",
    "MemoryDevice",
    "NoInterrupts",
    "PortBus",
    "PortDevice",
    "SharesState",
]


@runtime_checkable
class PortDevice(Protocol):
    """A device that decodes port accesses. Sizes are 1, 2 or 4 bytes."""

    def read(self, port: int, size: int) -> int:
        """The value on the bus; bits beyond `size` are dropped."""
        ...

    def write(self, port: int, size: int, value: int) -> None:
        """Take a value from the bus."""
        ...


@runtime_checkable
class MemoryDevice(Protocol):
    """A device that decodes guest-physical addresses. Sizes are 1, 2 or 4 bytes."""

    def memory_read(self, address: int, size: int) -> int:
        """The value on the bus; bits beyond `size` are dropped."""
        ...

    def memory_write(self, address: int, size: int, value: int) -> None:
        """Take a value from the bus."""
        ...


@runtime_checkable
class SharesState(Protocol):
    """A device that lets a port filter see some of its state.

    `shared_size` is in bytes; the layout is the device's, documented where it is
    written. What the filter may change lives in the shared bytes and nowhere else.
    """

    shared_size: int

    def share(self, view: memoryview) -> None:
        """Keep the shared state in `view`, of `shared_size` bytes, from now on."""
        ...


class Block(Protocol):
    """A stretch of guest memory that a device may use, by offset."""

    @property
    def start(self) -> int:
        """Its guest-physical address."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """What is there."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Store it there."""
        ...


class LendsItself(Protocol):
    """A device whose registers the ROM can keep in its place.

    `block_size` is the bytes of guest memory in which it leaves its state for the ROM, and
    in which both meet from then on. It asks for nothing by itself: when it wants itself
    back, it takes what is there.
    """

    block_size: int
    ports: Sequence[int]
    """Where its registers are."""

    def lend(self, block: Block) -> bool:
        """Leave the state in `block`; false, with nothing done, where that is not possible."""
        ...

    def serve(self) -> bool:
        """Carry out what the ROM asks for in the block; false if it is not lent."""
        ...


class InterruptController(Protocol):
    """Whoever decides which interrupt the CPU gets next."""

    @property
    def pending(self) -> bool:
        """Is the CPU's interrupt line up?"""
        ...

    def acknowledge(self) -> int:
        """The vector to deliver; called once per delivery, while `pending`."""
        ...


class NoInterrupts:
    """An interrupt line that nobody drives."""

    pending = False

    def acknowledge(self) -> int:
        """Raises `LookupError`: nothing is ever pending."""
        raise LookupError("no interrupt is pending")


class PortBus:
    """Port accesses by range; nobody home reads as all ones."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, PortDevice, str]] = []
        self._cache: dict[int, PortDevice | None] = {}

    def register(self, first: Port, count: int, device: PortDevice, name: str = "") -> None:
        """Give `count` ports from `first` on to a device; raises `ValueError` on overlap.

        The error calls devices by `name`, or by their class.
        """
        name = name or type(device).__name__
        last = first + count - 1
        for other_first, other_last, _, other in self._ranges:
            if first <= other_last and other_first <= last:
                raise ValueError(
                    f"ports {first:#06x}-{last:#06x} of {name} overlap "
                    f"{other_first:#06x}-{other_last:#06x} of {other}"
                )
        self._ranges.append((first, last, device, name))
        self._cache.clear()

    def device_at(self, port: int) -> PortDevice | None:
        """Who decodes this port."""
        if port not in self._cache:
            self._cache[port] = next(
                (device for first, last, device, _ in self._ranges if first <= port <= last), None
            )
        return self._cache[port]

    def read(self, port: int, size: int) -> int:
        """IN."""
        device = self.device_at(port)
        return (1 << (8 * size)) - 1 if device is None else device.read(port, size)

    def write(self, port: int, size: int, value: int) -> None:
        """OUT."""
        device = self.device_at(port)
        if device is not None:
            device.write(port, size, value)


class MemoryBus:
    """Memory accesses outside RAM, by whole pages; nobody home reads as all ones."""

    def __init__(self) -> None:
        self._devices: dict[int, MemoryDevice] = {}
        self._names: dict[int, str] = {}

    def register(
        self, first: GuestPhysical, size: int, device: MemoryDevice, name: str = ""
    ) -> None:
        """Give `size` bytes from guest-physical `first` on to a device.

        Raises `ValueError` on an overlap, and unless both are multiples of a page; it
        calls devices by `name`, or by their class.
        """
        name = name or type(device).__name__
        if first & PAGE_MASK or size & PAGE_MASK or size <= 0:
            raise ValueError(f"memory range of {size:#x} at {first:#x}: expected whole pages")
        frames = range(first >> PAGE_SHIFT, (first + size) >> PAGE_SHIFT)
        for frame in frames:
            if frame in self._devices:
                raise ValueError(
                    f"memory {first:#x}-{first + size - 1:#x} of {name} overlaps "
                    f"{self._names[frame]} at {frame << PAGE_SHIFT:#x}"
                )
        self._devices.update(dict.fromkeys(frames, device))
        self._names.update(dict.fromkeys(frames, name))

    def frames(self) -> set[int]:
        """The page frames where a device decodes."""
        return set(self._devices)

    def read(self, address: int, size: int) -> int:
        """A load."""
        device = self._devices.get(address >> PAGE_SHIFT)
        mask = (1 << (8 * size)) - 1
        return mask if device is None else device.memory_read(address, size) & mask

    def write(self, address: int, size: int, value: int) -> None:
        """A store."""
        device = self._devices.get(address >> PAGE_SHIFT)
        if device is not None:
            device.memory_write(address, size, value)
