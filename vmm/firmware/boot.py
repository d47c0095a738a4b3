"""How a guest is started, whatever its format: what goes where, and the first registers."""

from dataclasses import dataclass, field

from vmi.address import GuestPhysical

__all__ = ["BootPlan", "Segment"]


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
    `code` and `data` are the selectors that the protocol promises.
    """

    protocol: str
    segments: tuple[Segment, ...]
    entry: GuestPhysical
    code: int
    data: int
    registers: dict[int, int] = field(default_factory=dict)
