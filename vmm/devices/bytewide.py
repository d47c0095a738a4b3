"""Devices with 8-bit registers: wider accesses become several, as the ISA bus splits them."""

from abc import ABC, abstractmethod

__all__ = ["ByteWideDevice"]


class ByteWideDevice(ABC):
    """Splits an access of `size` bytes into accesses to as many consecutive ports."""

    def read(self, port: int, size: int) -> int:
        """The bytes of consecutive ports, the lowest port in the lowest byte."""
        value = 0
        for i in range(size):
            value |= (self.read_byte(port + i) & 0xFF) << (8 * i)
        return value

    def write(self, port: int, size: int, value: int) -> None:
        """A byte to each of `size` consecutive ports, the lowest first."""
        for i in range(size):
            self.write_byte(port + i, value >> (8 * i) & 0xFF)

    @abstractmethod
    def read_byte(self, port: int) -> int:
        """One register; 0xFF where there is none."""

    @abstractmethod
    def write_byte(self, port: int, value: int) -> None:
        """Store a byte to one register; dropped where there is none."""
