"""Instructions are counted right where other code of the same size comes to the same address."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from vmm.core.outcome import OutcomeKind
from vmm.core.policy import policy_named
from vmm.machine import Machine, Run

if TYPE_CHECKING:
    from conftest import MakeGuest

RunGuest = Callable[..., Run]

# Two pieces of code each, as long as the other one.
PAIRS = {
    "no exit": ("90 90 90 90 c3", "8d 44 20 00 c3"),
    "an exit within": ("90 90 90 90 0f a2 90 c3", "8d 44 20 00 0f a2 90 c3"),
    "an exit elsewhere": ("0f a2 90 90 90 c3", "90 90 90 0f a2 c3"),
    "a string": ("f3 a5", "89 c0"),
    "no string": ("89 c0", "f3 a5"),
}
ROUNDS = 20
WORK = """
work:	mov $3, %ecx
	mov $FREE + 0x10000, %esi
	mov $FREE + 0x20000, %edi
	mov $FREE, %eax
	jmp *%eax
"""
"""Go to the code, with room for what a string instruction copies."""


def bytes_at(address: str, code: str) -> str:
    """Store code at an address."""
    return "\n".join(
        f"	movb $0x{byte}, {address} + {i}" for i, byte in enumerate(f"{code} c3".split())
    )


def changed(first: str, second: str) -> str:
    """One program that changes its code."""
    return f"""
start:	PAGING
	mov ${ROUNDS}, %ebp
again:
{bytes_at("FREE", first)}
	call work
{bytes_at("FREE", second)}
	call work
	dec %ebp
	jnz again
	FINISH 0
{WORK}"""


def mapped(first: str, second: str) -> str:
    """Two address spaces, which have different code at one address."""
    return f"""
start:
{bytes_at("FREE", first)}
{bytes_at("FREE + 0x1000", second)}
	mov $DIRECTORY, %esi
	mov $FREE + 0x2000, %edi
	mov $2048, %ecx
	rep movsl
	movl $FREE + 0x3000 + OPEN, FREE + 0x2000
	movl $FREE + 0x1000 + OPEN, FREE + 0x3000 + 4 * 0x200
	PAGING
	mov ${ROUNDS}, %ebp
again:	mov $DIRECTORY, %eax
	mov %eax, %cr3
	call work
	mov $FREE + 0x2000, %eax
	mov %eax, %cr3
	call work
	dec %ebp
	jnz again
	FINISH 0
{WORK}"""


@pytest.mark.parametrize("program", [changed, mapped])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_count_is_that_of_each(
    run_guest: RunGuest, pair: str, program: Callable[[str, str], str]
) -> None:
    """Both by turns are half of each alone."""
    one, other = PAIRS[pair]
    counts = {
        (a, b): run_guest(program(a, b)).instructions for a in (one, other) for b in (one, other)
    }
    assert counts[one, other] == counts[other, one]
    assert 2 * counts[one, other] == counts[one, one] + counts[other, other]
    assert counts[one, one] != counts[other, other] or "elsewhere" in pair


@pytest.mark.parametrize("first", ["90 90", "e4 61"])
def test_a_port_access_that_comes_to_code(run_guest: RunGuest, first: str) -> None:
    """Ring 3 has no right to it, and its kernel hears so each time."""
    second = "e4 61" if first == "90 90" else "90 90"
    source = f"""
start:	PAGING
	xor %ebx, %ebx
	USER_MODE user
user:	mov ${ROUNDS}, %ebp
again:
{bytes_at("FREE", first)}
	call work
{bytes_at("FREE", second)}
	call work
	dec %ebp
	jnz again
	int $0x40
work:	mov $FREE, %eax
	jmp *%eax
caught:	add $4, %esp
	addl $2, (%esp)
	inc %ebx
	iretl
done:	cmp ${ROUNDS}, %ebx
	jne bad
	FINISH 0
bad:	FINISH 1
"""
    run_guest(source, handlers={13: "caught", 0x40: "done"})


def test_flags_are_kept_in_changed_code(run_guest: RunGuest) -> None:
    """`setg` to memory replaces an instruction that cannot fault, as long as it is."""
    source = f"""
start:	PAGING
	mov ${ROUNDS}, %ebp
again:	mov $0x7fffffff, %eax
	mov $1, %edx
	mov $FREE + 0x10000, %edi
	movl $0, TABLE + 4 * 0x210
	invlpg (%edi)
{bytes_at("FREE", "01 d0 90 90 90")}
	call work
{bytes_at("FREE", "01 d0 0f 9f 07")}
	mov $0x7fffffff, %eax
	call work
	cmpb $1, (%edi)
	jne bad
	dec %ebp
	jnz again
	FINISH 0
bad:	FINISH 1
work:	mov $FREE, %ecx
	jmp *%ecx
caught:	mov 12(%esp), %eax
	and $0x8d5, %eax
	cmp $0x894, %eax
	jne bad
	add $4, %esp
	movl $FREE + 0x10000 + OPEN, TABLE + 4 * 0x210
	invlpg (%edi)
	iretl
"""
    run_guest(source, handlers={14: "caught"})


def test_code_that_takes_its_own_mapping_away(run_guest: RunGuest) -> None:
    """And then accesses a port from ring 3: a shadow that is out of step has the code yet."""
    run_guest(
        f"""
start:	PAGING
{bytes_at("FREE", "c7 05 00 d8 10 00 00 00 00 00 eb 00 e4 61")}
	USER_MODE FREE
missing:
	cmpl $FREE + 10, 4(%esp)
	je good
refused:
	cmpl $FREE + 12, 4(%esp)
	jne bad
good:	FINISH 0
bad:	FINISH 1
""",
        handlers={13: "refused", 14: "missing"},
        policy=policy_named("svm-unsync"),
    )


def test_code_that_changes_all_the_time(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    """Only so many of its versions are remembered; each is counted as it is."""
    source = f"""
start:	PAGING
{bytes_at("FREE", "b8 00 00 00 00")}
	mov $2000, %ecx
again:	mov %ecx, FREE + 1
	mov $FREE, %edx
	call *%edx
	cmp %ecx, %eax
	jne bad
	dec %ecx
	jnz again
	FINISH 0
bad:	FINISH 1
"""
    machine = make_machine(tiny_guest(source))
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED
    assert machine.vcpu.table.used < 600
    short = make_machine(tiny_guest(source.replace("$2000", "$1000"))).run()
    assert run.instructions - short.instructions == 1000 * 9


def test_code_goes_on_at_0(run_guest: RunGuest) -> None:
    """Behind the last byte of the address space."""
    run_guest(
        f"""
start:	PAGING
	movl $FREE + 0x1000 + OPEN, FREE + 0xffc
	movl $FREE + OPEN, DIRECTORY + 0xffc
{bytes_at("FREE + 0x1ffa", "90 31 c0 40 90")}
	movb $0x90, FREE + 0x1fff
	movl $0xe0ff90b8, 0
	movl $landed, 1
	movw $0xe0ff, 5
	mov $0xfffffffa, %eax
	jmp *%eax
landed:	FINISH 0
"""
    )
