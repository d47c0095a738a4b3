"""The boundary between core and devices: port ranges, an interrupt line, a clock.

This is all that a device sees of the core. Crossing it is a heavy exit.
"""

from typing import Protocol, runtime_checkable

from vmi.address import Port

__all__ = ["InterruptController", "NoInterrupts", "PortBus", "PortDevice"]


@runtime_checkable
class PortDevice(Protocol):
    """A device that decodes port accesses. Sizes are 1, 2 or 4 bytes."""

    def read(self, port: int, size: int) -> int:
        """The value on the bus; bits beyond `size` are dropped."""
        ...

    def write(self, port: int, size: int, value: int) -> None:
        """Take a value from the bus."""
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
        """Never called: nothing is ever pending."""
        raise LookupError("no interrupt is pending")


class PortBus:
    """Port accesses by range; nobody home reads as all ones."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, PortDevice]] = []
        self._cache: dict[int, PortDevice | None] = {}

    def register(self, first: Port, count: int, device: PortDevice) -> None:
        """Give `count` ports from `first` on to a device; raises `ValueError` on overlap."""
        last = first + count - 1
        for other_first, other_last, other in self._ranges:
            if first <= other_last and other_first <= last:
                raise ValueError(
                    f"ports {first:#06x}-{last:#06x} of {type(device).__name__} overlap "
                    f"{other_first:#06x}-{other_last:#06x} of {type(other).__name__}"
                )
        self._ranges.append((first, last, device))
        self._cache.clear()

    def device_at(self, port: int) -> PortDevice | None:
        """Who decodes this port."""
        if port not in self._cache:
            self._cache[port] = next(
                (device for first, last, device in self._ranges if first <= port <= last), None
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
