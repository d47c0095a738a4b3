"""Where an application processor begins: what SetInitialAPState hands over.

The caller has sent INIT and will send start-up; the processor then begins in this state
and not in real mode. The ROM rings `Doorbell.START_AP` with the address of two words, the
address of the state and the processor's APIC id. Source: struct vmi_ap_state of Linux
arch/x86/include/asm/vmi.h and vmi_startup_ipi_hook of arch/x86/kernel/vmi_32.c, 2.6.21
to 2.6.36.
"""

import struct
from dataclasses import astuple, dataclass

__all__ = ["AP_STATE_SIZE", "START_WORDS", "ApState"]

_LAYOUT = struct.Struct("<4I Q 10I 8H 2I H 2x")
AP_STATE_SIZE = _LAYOUT.size
"""Bytes; a multiple of 4."""
START_WORDS = 2
"""32-bit words of what the ROM's ring hands over."""


@dataclass(frozen=True, slots=True)
class ApState:
    """The registers, in the order they have in memory; 32-bit, EFER 64, selectors 16."""

    cr0: int = 0
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    eip: int = 0
    eflags: int = 0
    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0
    esp: int = 0
    ebp: int = 0
    esi: int = 0
    edi: int = 0
    cs: int = 0
    ss: int = 0
    ds: int = 0
    es: int = 0
    fs: int = 0
    gs: int = 0
    ldtr: int = 0
    gdtr_limit: int = 0
    gdtr_base: int = 0
    idtr_base: int = 0
    idtr_limit: int = 0

    @classmethod
    def decode(cls, data: bytes) -> "ApState":
        """Read `AP_STATE_SIZE` bytes; raises `ValueError` for another number of them."""
        if len(data) != AP_STATE_SIZE:
            raise ValueError(f"processor state of {len(data)} bytes, expected {AP_STATE_SIZE}")
        return cls(*_LAYOUT.unpack(data))

    def encode(self) -> bytes:
        """The state as it lies in memory."""
        return _LAYOUT.pack(*astuple(self))
