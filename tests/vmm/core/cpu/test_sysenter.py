"""SYSENTER goes where its registers say, whatever the instruction looks like."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmm.machine import Run

RunGuest = Callable[..., Run]

SOURCE = """
start:	PAGING
	mov $0x174, %ecx
	mov $KERNEL_CODE, %eax
	xor %edx, %edx
	wrmsr
	inc %ecx
	mov $STACK_TOP, %eax
	wrmsr
	inc %ecx
	mov $ENTRY, %eax
	wrmsr
	mov ENTRY, %esi
	mov ENTRY + 4, %edi
	movl $0xe0ff90b8, ENTRY			# mov $landed, %eax; jmp *%eax
	movl $landed, ENTRY + 1
	movw $0xe0ff, ENTRY + 5
	xor %ebx, %ebx
	USER_MODE user
user:	inc %ebx
	.byte BYTES
	inc %ebx
landed:	cmp $1, %ebx
	jne bad
	cmp $STACK_TOP, %esp
	jne bad
	FINISH 0
bad:	FINISH 1
"""


@pytest.mark.parametrize("code", ["0x0f, 0x34", "0x66, 0x0f, 0x34", "0x2e, 0xf3, 0x66, 0x0f, 0x34"])
@pytest.mark.parametrize("entry", ["0", "1", "FREE", "FREE + 0xffe"])
def test_it_lands(run_guest: RunGuest, entry: str, code: str) -> None:
    """Also at the bottom of the address space, where its own length behind it is the top."""
    run_guest(SOURCE.replace("ENTRY", f"({entry})").replace("BYTES", code))


@pytest.mark.parametrize("code", ["0x0f, 0x05", "0x66, 0x0f, 0x05"])
def test_syscall_is_none_with_a_prefix(run_guest: RunGuest, code: str) -> None:
    """The frame stands on the prefix, and the handler begins at its first byte."""
    run_guest(
        f"""
start:	PAGING
	xor %ebx, %ebx
at:	.byte {code}
bad:	FINISH 1
caught:	.byte 0x43			# inc %ebx
	cmpl $at, (%esp)
	jne bad
	cmp $1, %ebx
	jne bad
	FINISH 0
""",
        handlers={6: "caught"},
    )
