"""A guest has a disk's interrupt as a message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine

if TYPE_CHECKING:
    from conftest import MakeGuest

VECTOR = 0x51
SOURCE = """
	.set APIC, 0xfee00000
	.macro CONFIG register, value
	mov $0xcf8, %edx
	mov $0x80000800 + \\register, %eax
	outl %eax, (%dx)
	mov $0xcfc, %edx
	mov $\\value, %eax
	outl %eax, (%dx)
	.endm
start:
	movl $0x1ff, APIC + 0xf0
	CONFIG 0x04, 5
	CONFIG 0x84, ADDRESS
	CONFIG 0x88, 0x51
	CONFIG 0x80, 0x10000
	mov $0x1f6, %edx			# IDENTIFY DEVICE
	mov $0xa0, %al
	outb %al, (%dx)
	mov $0x1f7, %edx
	mov $0xec, %al
	outb %al, (%dx)
	sti
	hlt
	FINISH 1
interrupted:
	mov $0x1f7, %edx
	inb (%dx), %al
	movl $0, APIC + 0xb0
	FINISH 0
"""


@pytest.mark.parametrize(
    ("address", "outcome"),
    [(0xFEE00000, OutcomeKind.PASSED), (0x00100000, OutcomeKind.HALTED)],
)
def test_a_disk_interrupts_by_message(
    tiny_guest: MakeGuest,
    make_machine: Callable[..., Machine],
    tmp_path: Path,
    address: int,
    outcome: OutcomeKind,
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(64 * 512))
    source = SOURCE.replace("ADDRESS", str(address))
    guest = tiny_guest(source, handlers={VECTOR: "interrupted"})
    assert make_machine(guest, disk=disk, apic=True).run().outcome.kind is outcome
