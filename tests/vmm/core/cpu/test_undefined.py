"""Instructions that the engine knows and the processor, by its CPUID, does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmm.machine import Run

RunGuest = Callable[..., Run]

INSTRUCTIONS = {
    "syscall": "0x0f, 0x05",
    "sysret": "0x0f, 0x07",
    "monitor": "0x0f, 0x01, 0xc8",
    "mwait": "0x0f, 0x01, 0xc9",
    "ud2": "0x0f, 0x0b",
}


@pytest.mark.parametrize("where", ["alone", "in a block"])
@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_it_raises_invalid_opcode(run_guest: RunGuest, name: str, ring: int, where: str) -> None:
    """EIP of the frame stands on it, and nothing behind it is executed."""
    enter = "USER_MODE user" if ring else "jmp user"
    before = "inc %ebx" if where == "in a block" else "jmp at"
    run = run_guest(
        f"""
start:	PAGING
	xor %ebx, %ebx
	{enter}
user:	xor %ecx, %ecx
	{before}
at:	.byte {INSTRUCTIONS[name]}
	mov $1, %ebx
wrong:	jmp wrong
caught:	cmpl $at, %ss:(%esp)
	jne bad
	cmp $1, %ebx
	{"jne" if before == "inc %ebx" else "je"} bad
	FINISH 0
bad:	FINISH 1
""",
        handlers={6: "caught"},
    )
    assert run.ledger.engine_events["exception"] == 1


def test_a_kernel_can_skip_it(run_guest: RunGuest) -> None:
    """The instruction is not counted, its handler's and what follows are."""
    source = """
start:	PAGING
	mov $100, %ecx
again:	.byte {bytes}
	dec %ecx
	jnz again
	FINISH 0
caught:	addl $2, (%esp)
	iretl
"""
    syscalls = run_guest(source.replace("{bytes}", "0x0f, 0x05"), handlers={6: "caught"})
    undefined = run_guest(source.replace("{bytes}", "0x0f, 0x0b"), handlers={6: "caught"})
    assert syscalls.instructions == undefined.instructions
    assert syscalls.ledger.engine_events["exception"] == 100
