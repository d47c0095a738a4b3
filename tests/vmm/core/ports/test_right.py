"""Ports in ring 3: IOPL, the task's I/O map, and #GP (SDM vol. 1, section 19.5)."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from vmm.core.event import Reason
from vmm.machine import Run

GDT, TSS = 0x108000, 0x10B000
RunGuest = Callable[..., Run]

ACCESSES = {
    "in al, imm": ("inb $0x71, %al", 0x71, 1),
    "in al, dx": ("inb %dx, %al", 0x402, 1),
    "in ax, dx": ("inw %dx, %ax", 0x402, 2),
    "in eax, dx": ("inl %dx, %eax", 0x402, 4),
    "out imm, al": ("outb %al, $0x80", 0x80, 1),
    "out dx, al": ("outb %al, %dx", 0x402, 1),
    "insb": ("insb %dx, %es:(%edi)", 0x402, 1),
    "rep outsb": ("rep outsb %ds:(%esi), %dx", 0x402, 1),
}


def source(access: str, *, flags: int = 2, expect: str = "refused") -> str:
    return f"""
start:	PAGING
	xor %ebx, %ebx
	mov $0x402, %edx
	mov $FREE, %esi
	mov $FREE, %edi
	mov $3, %ecx
	cld
	push $USER_DATA
	push $USER_STACK_TOP
	push ${flags}
	push $USER_CODE
	push $user
	iretl
user:	movl $1, 0x200100
	inc %ebx
	movl $2, 0x200104
at:	{access}
	inc %ebx
	int $0x80
refused:	cmpl $0, %ss:(%esp)
	jne bad
	cmpl $at, %ss:4(%esp)
	jne bad
	cmpl ${flags}, %ss:12(%esp)
	jne bad
	cmp $1, %ebx
	jne bad
	cmpl $2, 0x200104
	jne bad
	mov ${0 if expect == "refused" else 1}, %eax
	jmp end
passed:	cmp $2, %ebx
	jne bad
	mov ${0 if expect == "passed" else 1}, %eax
	jmp end
bad:	mov $2, %eax
end:	mov $0x501, %edx
	outl %eax, (%dx)
	.byte 0xeb, 0xfe
"""


HANDLERS = {13: "refused", 0x80: "passed"}


def task(bits: dict[int, int], *, limit: int, base: int = 0x68) -> dict[int, bytes]:
    """A TSS of this limit whose I/O map allows all but some bits."""
    descriptor = 0x0000890000000000 | limit | (TSS & 0xFFFFFF) << 16
    area = bytearray(b"\0" * 0x100)
    for byte, value in bits.items():
        area[byte] = value
    return {
        GDT + 5 * 8: struct.pack("<Q", descriptor),
        TSS + 0x64: struct.pack("<HH", 0, base),
        TSS + 0x68: bytes(area),
    }


@pytest.mark.parametrize("name", ACCESSES)
def test_without_right_it_faults_and_does_nothing(run_guest: RunGuest, name: str) -> None:
    access, _, _ = ACCESSES[name]
    run = run_guest(source(access), handlers=HANDLERS)
    assert run.ledger.by_reason[Reason.IO].count == 1  # The power port, at the end.


@pytest.mark.parametrize("name", ACCESSES)
def test_iopl_3_opens_all(run_guest: RunGuest, name: str) -> None:
    access, _, _ = ACCESSES[name]
    run = run_guest(source(access, flags=0x3002, expect="passed"), handlers=HANDLERS)
    assert run.ledger.by_reason[Reason.IO].count == (4 if name.startswith("rep") else 2)


@pytest.mark.parametrize("name", ACCESSES)
def test_the_map_opens_single_ports(run_guest: RunGuest, name: str) -> None:
    access, port, size = ACCESSES[name]
    run_guest(source(access, expect="passed"), handlers=HANDLERS, pieces=task({}, limit=0x167))
    for refused in range(port, port + size):
        pieces = task({refused >> 3: 1 << (refused & 7)}, limit=0x167)
        run_guest(source(access), handlers=HANDLERS, pieces=pieces)
    others = task({port >> 3: 0xFF & ~(((1 << size) - 1) << (port & 7))}, limit=0x167)
    run_guest(source(access, expect="passed"), handlers=HANDLERS, pieces=others)


@pytest.mark.parametrize(
    ("limit", "expect"), [(0x68 + 0x80, "refused"), (0x68 + 0x81, "passed"), (0x67, "refused")]
)
def test_a_map_that_ends_early_closes_the_rest(
    run_guest: RunGuest, limit: int, expect: str
) -> None:
    """Port 0x402 is in byte 0x80 of the map, and the byte behind is read as well."""
    run_guest(
        source("inb %dx, %al", expect=expect), handlers=HANDLERS, pieces=task({}, limit=limit)
    )
