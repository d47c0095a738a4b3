"""What get_reloc answers: EAX = run-time address, DL = kind of patch."""

from dataclasses import dataclass
from enum import IntEnum

from vmi.address import GuestVirtual

__all__ = ["RelocationAnswer", "RelocationKind"]


class RelocationKind(IntEnum):
    """How the guest patches a call site (Linux asm/vmi.h, VMI_RELOCATION_*)."""

    NONE = 0
    """Leave the native instruction in place."""
    CALL_REL = 1
    """Replace it by a near call to the address."""
    JUMP_REL = 2
    """Replace it by a near jump; only for calls that do not return (IRET, SYSEXIT)."""
    NOP = 3
    """Drop the operation."""


@dataclass(frozen=True, slots=True)
class RelocationAnswer:
    """One answer of get_reloc, as the guest receives it in EDX:EAX."""

    kind: RelocationKind
    address: GuestVirtual

    @classmethod
    def from_registers(cls, eax: int, edx: int) -> "RelocationAnswer":
        """Decode EDX:EAX.

        Only DL counts; the other bytes of EDX are reserved. Raises `ValueError`
        for a kind that API 3.0 does not know.
        """
        try:
            kind = RelocationKind(edx & 0xFF)
        except ValueError:
            expected = ", ".join(f"{k.value} {k.name}" for k in RelocationKind)
            raise ValueError(
                f"get_reloc answered kind {edx & 0xFF}, expected one of {expected}"
            ) from None
        return cls(kind, GuestVirtual(eax))
