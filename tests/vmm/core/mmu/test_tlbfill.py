"""The shadow's own walker against the engine's: the same run, to the last count.

The engine's walker leaves a block at each fault; ours stays in it where it can.
"""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING, Any

import pytest

from bench.inputs import load_rom
from rombuilder.guest import build_guest
from vmm.core import is_compiled
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import policy_named
from vmm.engine.calibration import WALKER, address_of
from vmm.machine import Machine, MachineDescription, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import MakeGuest

pytestmark = pytest.mark.skipif(not is_compiled(), reason="the core is not compiled")

TABLE = 0x10D000
P, RW, US = 1, 2, 4
GUESTS = {
    "forkstorm": "rounds=1 pages=24",
    "mmapstorm": "rounds=1 pages=16",
    "pagefault": "rounds=1 pages=16",
    "ctxswitch": "rounds=4 tasks=3",
    "iostorm": "",
    "probe": "",
}
BLOCKS = {
    "loads": """
	mov 0x200000, %eax
	mov 0x201000, %ebx
	add 0x202000, %ebx
	adc 0x203000, %ebx
	""",
    "a store behind a load": """
	mov 0x200000, %eax
	mov %eax, 0x201000
	inc %eax
	mov %eax, 0x202004
	""",
    "flags across a fault": """
	mov $1, %eax
	sub $2, %eax
	mov 0x200000, %ebx
	sbb $0, %ebx
	pushf
	mov 0x201000, %ecx
	adc $0, %ecx
	pushf
	""",
    "both halves of an access that crosses pages": """
	mov $0x12345678, %eax
	mov %eax, 0x200ffe
	mov 0x201fff, %ebx
	xchg %ebx, 0x202ffd
	""",
    "read, modify and write": """
	lock incl 0x200000
	xorl $-1, 0x201000
	lock btsl $3, 0x202000
	mov 0x203000, %eax
	mov $7, %ecx
	cmpxchg %ecx, 0x204000
	""",
    "a store to the block's own code": """
	movb $0x90, own + 1
	mov $5, %ebx
own:	mov $6, %al
	mov %eax, 0x200000
	""",
    "code that loses its mapping": """
	movl $0, TABLE + 4 * 0x100
	mov 0x200000, %eax
	mov 0x201000, %eax
	""",
    "a table that is stored to": """
	mov 0x200000, %eax
	movl $0x205000 | OPEN, TABLE + 4 * 0x201
	mov 0x201000, %ebx
	movl $0, TABLE + 4 * 0x202
	invlpg 0x202000
	mov 0x203000, %ecx
	""",
    "a page that moves between a load and a store": """
	movl $7, 0x201000
	mov 0x200000, %eax
	movl $0x201000 | OPEN, TABLE + 4 * 0x200
	incl 0x200000
	mov 0x201000, %ebx
	""",
    "an INT and an IRET": """
	mov 0x200000, %eax
	mov $0x201000, %esp
	int $0x40
	mov 0x202000, %ebx
	""",
    "single steps": """
	pushf
	orl $0x100, (%esp)
	popf
	mov 0x200000, %eax
	mov 0x201000, %ebx
	pushf
	andl $~0x100, (%esp)
	popf
	""",
    "strings": """
	mov $0x200ff0, %esi
	mov $0x202ff8, %edi
	mov $16, %ecx
	cld
	rep movsl
	mov $0x204ffc, %edi
	mov $3, %ecx
	rep stosl
	lodsl
	""",
    "ports": """
	mov 0x200000, %eax
	in $0x61, %al
	mov 0x201000, %ebx
	out %al, $0x80
	mov 0x202000, %ecx
	""",
}
UNTOUCHED = {
    TABLE + 4 * 0x200: struct.pack("<256I", *(4096 * i | P | RW | US for i in range(0x200, 0x300)))
}
"""Entries for 1 MiB from 0x200000 on, which nobody has accessed: each first access faults."""


def run_both(make: Callable[[], Machine]) -> tuple[Run, Run, int, int]:
    """With our walker and with the engine's: the runs, and how many blocks each met."""
    ours, engines = make(), make()
    for engine in engines.engines:
        ctypes.c_size_t.from_address(engine._walker).value = address_of(WALKER)
    runs = ours.run(), engines.run()
    return *runs, ours.vcpu.table.used, engines.vcpu.table.used


@pytest.mark.parametrize("policy", ["svm-shadow", "svm-unsync", "vtx-shadow"])
@pytest.mark.parametrize("rom", ["none", "identity", "batching"])
@pytest.mark.parametrize("guest", GUESTS)
def test_the_guests(guest: str, rom: str, policy: str) -> None:
    description = MachineDescription(
        build_guest(guest).data,
        rom=load_rom(rom).image,
        command_line=GUESTS[guest],
        policy=policy_named(policy),
        max_instructions=5_000_000,
    )
    ours, engines, _, _ = run_both(lambda: Machine(description))
    assert ours == engines


@pytest.mark.parametrize("policy", ["svm-shadow", "svm-unsync"])
@pytest.mark.parametrize("paging", ["PAGING", ""], ids=["paged", "unpaged"])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_fault_in_the_middle_of_a_block(
    tiny_guest: MakeGuest,
    make_machine: Callable[..., Machine],
    block: str,
    paging: str,
    policy: str,
) -> None:
    source = f"""
start:	{paging}
	jmp second
second:	{BLOCKS[block]}
	jmp third
third:	FINISH 0
nothing:
	incl 0x300000
	iretl
	"""
    guest = tiny_guest(source, handlers={0x40: "nothing", 1: "nothing"}, pieces=UNTOUCHED)
    ours, engines, _, _ = run_both(lambda: make_machine(guest, policy=policy_named(policy)))
    assert ours == engines
    if block != "code that loses its mapping":
        assert ours.outcome.kind is OutcomeKind.PASSED, ours.outcome


def test_the_block_goes_on_where_it_is(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    """Else its rest would be a block of its own; at the first of four faults that is known."""
    source = f"start:	PAGING\n{BLOCKS['loads']}\n	jmp end\nend:	FINISH 0"
    guest = tiny_guest(source, pieces=UNTOUCHED)
    ours, engines, blocks, more = run_both(lambda: make_machine(guest))
    assert ours == engines
    assert more - blocks == 3


def test_what_the_second_tlb_still_has(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    """A page that was loaded from and never stored to, with the directory in its place since.

    The way to it is cut by the store to the directory: whether the store to it finds it in a
    TLB shows in which of two stores faults.
    """
    source = """
start:	PAGING
	mov LOADED, %ebx
	xor %eax, %eax
	add %eax, DIRECTORY
	movl $1, LOADED
	movl $1, LOADED + 0x1000
	FINISH 0
	.set LOADED, DIRECTORY + 0x100000	# 256 pages on
	"""
    ours, engines, _, _ = run_both(lambda: make_machine(tiny_guest(source)))
    assert ours.outcome.kind is OutcomeKind.PASSED, ours.outcome
    assert ours == engines


@pytest.mark.parametrize("limit", [1000, 1700, 2400])
def test_a_block_that_the_engine_cuts(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine], limit: int
) -> None:
    """Left at a fault, it goes on from there to another end: where a limit ends the run."""
    source = """
start:	PAGING
	mov $0x200000, %ebx
	jmp long
long:
	.rept 100
	nop
	.endr
	.rept 2500
	addb %al, (%ebx)
	.endr
	FINISH 0
"""
    guest = tiny_guest(source, pieces=UNTOUCHED)
    ours, engines, _, _ = run_both(lambda: make_machine(guest, max_instructions=limit))
    assert ours == engines
    assert ours.outcome.kind is OutcomeKind.LIMIT


@pytest.mark.parametrize("period", [3, 7, 50])
def test_an_interrupt_is_taken_where_it_would_be(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine], period: int
) -> None:
    """Time is up in the middle of a block as well, between its fault and its end."""
    source = f"""
start:	PAGING
	mov $0x13, %al
	out %al, $0x20
	mov $0x20, %al
	out %al, $0x21
	mov $1, %al
	out %al, $0x21
	mov $0xfe, %al
	out %al, $0x21
	mov $0x34, %al
	out %al, $0x43
	mov ${period}, %al
	out %al, $0x40
	xor %al, %al
	out %al, $0x40
	sti
	mov $0x200000, %ebx
again:	mov (%ebx), %eax
	mov %eax, 0x1000(%ebx)
	nop
	nop
	mov 0x1000(%ebx), %ecx
	nop
	add $0x1000, %ebx
	cmp $0x300000, %ebx
	jb again
	cli
	FINISH 0
tick:	push %eax
	incl 0x300000
	mov $0x20, %al
	out %al, $0x20
	pop %eax
	iretl
	"""
    guest = tiny_guest(source, handlers={0x20: "tick"}, pieces=UNTOUCHED)
    ours, engines, _, _ = run_both(lambda: make_machine(guest))
    assert ours == engines
    assert ours.outcome.kind is OutcomeKind.PASSED, ours.outcome


@pytest.mark.parametrize("limit", range(1000, 1060))
def test_a_limit_is_reached_where_it_would_be(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine], limit: int
) -> None:
    source = """
start:	PAGING
	mov $0x200000, %ebx
again:	mov (%ebx), %eax
	nop
	mov %eax, 0x800(%ebx)
	add $0x1000, %ebx
	jmp again
	"""
    guest = tiny_guest(source, handlers={14: "start"}, pieces=UNTOUCHED)
    about: dict[str, Any] = {"max_instructions": limit}
    ours, engines, _, _ = run_both(lambda: make_machine(guest, **about))
    assert ours == engines
