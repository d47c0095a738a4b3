"""Fetches: by what the guest's tables allowed when the TLB last looked, like any other access.

The shadow keeps pages from being executed until code is fetched from them, for the engine's
sake alone. Nobody may be the wiser for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from vmm.core.outcome import OutcomeKind
from vmm.core.policy import policy_named
from vmm.machine import Machine, Run

if TYPE_CHECKING:
    from conftest import MakeGuest

# V is mapped to PAGE1 by ENTRY, and has been read. Each page returns its number.
COMMON = """
	.set V, 0x300000
	.set PAGE1, 0x301000
	.set PAGE2, 0x302000
	.set RETURNS, 0xc300b0		# mov $0, %al; ret
	.macro CALL_V expected
	xor %eax, %eax
	mov $V, %edx
	call *%edx
	cmp $\\expected, %al
	jne wrong
	.endm
wrong:
	FINISH 0x51
fault:
	cmpl $0x11, (%esp)		# a fetch, and the page is present
	jne wrong
	FINISH 0x52
start:
	movl $RETURNS + 0x100, PAGE1
	movl $RETURNS + 0x200, PAGE2
"""
TWO_LEVELS = """
	.set ENTRY, TABLE + 4 * 0x300
	.macro MAP page, no_execute=0
	movl $\\page | 7, ENTRY
	.endm
	MAP PAGE1
	PAGING
	cmpb $0xb0, V
"""
THREE_LEVELS = """
	.set ROOT, 0x200000
	.set WIDE_DIRECTORY, 0x201000
	.set WIDE_TABLE, 0x202000
	.set LOW_TABLE, 0x203000
	.set ENTRY, WIDE_TABLE + 8 * 0x100
	.macro MAP page, no_execute=0
	movl $\\no_execute << 31, ENTRY + 4
	movl $\\page | 7, ENTRY
	.endm
	movl $WIDE_DIRECTORY | 1, ROOT
	movl $LOW_TABLE | 7, WIDE_DIRECTORY
	movl $WIDE_TABLE | 7, WIDE_DIRECTORY + 8
	xor %ecx, %ecx
1:	mov %ecx, %eax
	shl $12, %eax
	or $7, %eax
	mov %eax, LOW_TABLE(, %ecx, 8)
	add $0x200000, %eax
	mov %eax, WIDE_TABLE(, %ecx, 8)
	inc %ecx
	cmp $512, %ecx
	jne 1b
	MAP PAGE1
	mov $0xc0000080, %ecx
	rdmsr
	or $0x800, %eax
	wrmsr
	mov %cr4, %eax
	or $0x20, %eax
	mov %eax, %cr4
	mov $ROOT, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $0x80010000, %eax
	mov %eax, %cr0
	cmpb $0xb0, V
"""

RunCode = Callable[..., Run]


@pytest.fixture
def run_code(tiny_guest: MakeGuest, make_machine: Callable[..., Machine]) -> RunCode:
    def run(levels: str, body: str, policy: str = "svm-shadow") -> Run:
        guest = tiny_guest(COMMON + levels + body, handlers={14: "fault"})
        return make_machine(guest, policy=policy_named(policy)).run()

    return run


@pytest.mark.parametrize("levels", [TWO_LEVELS, THREE_LEVELS], ids=["32 bits", "PAE, no-execute"])
def test_a_fetch_goes_by_the_tlb(run_code: RunCode, levels: str) -> None:
    """Leaf tables are out of step until a flush: a first fetch must not know better."""
    run = run_code(
        levels, "MAP PAGE2\n CALL_V 1\n invlpg V\n CALL_V 2\n FINISH 0\n", policy="svm-unsync"
    )
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    assert run.ledger.engine_events["nx_fetch"] >= 1


@pytest.mark.parametrize("policy", ["svm-shadow", "svm-unsync"])
def test_the_guests_own_no_execute(run_code: RunCode, policy: str) -> None:
    run = run_code(
        THREE_LEVELS,
        """
	CALL_V 1
	MAP PAGE1, 1
	invlpg V
	cmpb $0xb0, V
	MAP PAGE2
	invlpg V
	CALL_V 2
	MAP PAGE2, 1
	invlpg V
	cmpb $0xb0, V
	CALL_V 2
""",
        policy,
    )
    assert str(run.outcome) == f"failed: the guest's check {0x52} failed"
