"""How a guest is started, whatever its format: what goes where, and the first registers."""

import struct
from dataclasses import dataclass, field

from vmi.address import GuestPhysical

__all__ = ["BootPlan", "Segment"]

_FLAT_CODE = 0x00CF9B000000FFFF
_FLAT_DATA = 0x00CF93000000FFFF


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes for guest-physical memory."""

    address: GuestPhysical
    data: bytes

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + len(self.data)


@dataclass(frozen=True, slots=True)
class BootPlan:
    """Memory and registers of a 32-bit entry with flat segments, paging off, interrupts off.

    Memory is zero where no segment lies. `registers` are by the encoding's number
    (EAX 0, ECX 1, EDX 2, EBX 3, ESP 4, EBP 5, ESI 6, EDI 7), zero where not given.
    `code` and `data` are the selectors that the protocol promises. `pages` says that
    the guest is known to turn paging on.
    """

    protocol: str
    segments: tuple[Segment, ...]
    entry: GuestPhysical
    code: int
    data: int
    registers: dict[int, int] = field(default_factory=dict)
    pages: bool = False

    def descriptors(self) -> bytes:
        """A GDT with flat code and data of 4 GiB at the two selectors."""
        gdt = bytearray(max(self.code, self.data) + 8)
        struct.pack_into("<Q", gdt, self.code, _FLAT_CODE)
        struct.pack_into("<Q", gdt, self.data, _FLAT_DATA)
        return bytes(gdt)
