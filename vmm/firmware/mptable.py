"""What firmware says of processors and interrupts: Intel's MultiProcessor Specification 1.4.

Chapter 4: a floating pointer on a 16-byte boundary where kernels search for it, and the
configuration table that it names.
"""

import struct
from enum import IntEnum

from vmi.address import GuestPhysical
from vmm.devices.ioapic import (
    IOAPIC_ADDRESS,
    IOAPIC_ID,
    IOAPIC_VERSION,
    input_of_irq,
)
from vmm.firmware.boot import Segment

__all__ = ["MP_ADDRESS", "mp_tables"]

MP_ADDRESS = GuestPhysical(0xF5A00)
"""In the BIOS's read-only memory, where kernels look last and nothing else lies."""

_LOCAL_APIC_ADDRESS = 0xFEE00000
_LOCAL_APIC_VERSION = 0x14
_REVISION = 4
_FLOATING_SIZE = 16
_HEADER_SIZE = 44
_ENABLED, _BOOT_PROCESSOR = 1, 2
_EVERY_LOCAL_APIC = 0xFF
_ISA_BUS = 0
_CASCADE = 2
_CONFORMS = 0


class _Entry(IntEnum):
    PROCESSOR = 0
    BUS = 1
    IO_APIC = 2
    IO_INTERRUPT = 3
    LOCAL_INTERRUPT = 4


class _Interrupt(IntEnum):
    VECTORED = 0
    NMI = 1
    EXTINT = 3


def mp_tables(processors: int, signature: int, features: int) -> Segment:
    """The floating pointer at `MP_ADDRESS` and the table behind it.

    The processors have the local APIC IDs from 0 on, the first one boots. `signature`
    and `features` are EAX and EDX of CPUID leaf 1.
    """
    entries = [
        *(
            struct.pack(
                "<BBBBIIII",
                _Entry.PROCESSOR,
                number,
                _LOCAL_APIC_VERSION,
                _ENABLED | (0 if number else _BOOT_PROCESSOR),
                signature,
                features,
                0,
                0,
            )
            for number in range(processors)
        ),
        struct.pack("<BB6s", _Entry.BUS, _ISA_BUS, b"ISA   "),
        struct.pack("<BBBBI", _Entry.IO_APIC, IOAPIC_ID, IOAPIC_VERSION, _ENABLED, IOAPIC_ADDRESS),
        _interrupt(_Entry.IO_INTERRUPT, _Interrupt.EXTINT, 0, IOAPIC_ID, 0),
        *(
            _interrupt(_Entry.IO_INTERRUPT, _Interrupt.VECTORED, irq, IOAPIC_ID, input_of_irq(irq))
            for irq in range(16)
            if irq != _CASCADE
        ),
        _interrupt(_Entry.LOCAL_INTERRUPT, _Interrupt.EXTINT, 0, _EVERY_LOCAL_APIC, 0),
        _interrupt(_Entry.LOCAL_INTERRUPT, _Interrupt.NMI, 0, _EVERY_LOCAL_APIC, 1),
    ]
    body = b"".join(entries)
    table = bytearray(
        struct.pack(
            "<4sHBB8s12sIHHIHBB",
            b"PCMP",
            _HEADER_SIZE + len(body),
            _REVISION,
            0,
            b"VMIROM  ",
            b"PC          ",
            0,
            0,
            len(entries),
            _LOCAL_APIC_ADDRESS,
            0,
            0,
            0,
        )
        + body
    )
    _check_sum(table, 7)
    floating = bytearray(
        struct.pack("<4sIBBBBB3x", b"_MP_", MP_ADDRESS + _FLOATING_SIZE, 1, _REVISION, 0, 0, 0)
    )
    _check_sum(floating, 10)
    return Segment(MP_ADDRESS, bytes(floating + table))


def _interrupt(entry: _Entry, kind: _Interrupt, irq: int, apic: int, number: int) -> bytes:
    """An ISA interrupt, with the polarity and trigger of its bus, at an APIC's input."""
    return struct.pack("<BBHBBBB", entry, kind, _CONFORMS, _ISA_BUS, irq, apic, number)


def _check_sum(table: bytearray, at: int) -> None:
    """Make all bytes sum to zero."""
    table[at] = -sum(table) & 0xFF
