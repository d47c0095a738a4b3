"""Faults that reach ring 3's kernel without an exit, and the curtain that makes this right.

A small guest whose kernel runs in the upper quarter of the linear space calls the ROM. It
passes with our ROM and ends as STALE once a rule is broken, in the ROM or in the core.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rombuilder.rom import Rom, build_rom
from romrules import ENDINGS, STALE, Scenario, calls, not_noticed, rings, with_symbols
from vmi.doorbell import Doorbell
from vmm.core.event import Reason
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import policy_named
from vmm.machine import Machine, Run

POLICY = "vtx-shadow"
HIGH = 0xC0000000
NO_PROGRESS = "unsupported: 100000 exits without an instruction completed"

# PAGE1 and PAGE2 hold 1 and 2. V is a page of ring 3, mapped by ENTRY. The kernel reaches all
# memory from HIGH up, through a table of its own.
PRELUDE = f"""
	.set V, 0x200000
	.set ENTRY, TABLE + 0x800
	.set PAGE1, 0x201000
	.set PAGE2, 0x202000
	.set HIGH_TABLE, 0x208000
	.set CLEAN, OPEN & ~0x40

{calls(entries="HIGH")}
	.macro SEND_TO_USER entry
	INVALIDATE V
	USER_MODE \\entry
	.endm

{ENDINGS}
high_gdt:
	.word 6 * 8 - 1
	.long HIGH + GDT
high_idt:
	.word 256 * 8 - 1
	.long HIGH + IDT

start:
	movl $1, PAGE1
	movl $2, PAGE2
	xor %ecx, %ecx
1:	mov TABLE(,%ecx,4), %eax
	and $~4, %eax
	mov %eax, HIGH_TABLE(,%ecx,4)
	inc %ecx
	cmp $1024, %ecx
	jne 1b
	movl $0, TABLE + (DIRECTORY >> 10)	# ring 3 has no tables and no ROM to write to
	movl $0, TABLE + (TABLE >> 10)
	mov $0xa0, %ecx
3:	movl $0, TABLE(,%ecx,4)
	inc %ecx
	cmp $0x100, %ecx
	jne 3b
	movl $HIGH_TABLE | OPEN, DIRECTORY + 4 * 768
	PAGING
	mov $upper, %eax
	add $HIGH, %eax
	jmp *%eax
upper:
	add $HIGH, %esp
	movl $0, HIGH + FREE + 0x10000		# later, a handler's access to it shall not exit
	mov $256, %ecx
	mov $HIGH + IDT + 6, %edx
2:	orw $0xc000, (%edx)
	add $8, %edx
	dec %ecx
	jnz 2b
	orl $HIGH, HIGH + TSS + 4
	movb $0x89, HIGH + GDT + TASK + 5
	orb $0xc0, HIGH + GDT + TASK + 7
	mov $high_gdt, %eax
	lgdt HIGH(%eax)
	lidt HIGH + 6(%eax)
	mov $TASK, %eax
	ltr %ax
	VMI vmi_init
	test %eax, %eax
	jnz stale
	LINEAR HIGH
"""
FAULTED = {14: "fault", 0x80: "passed", 0x81: "stale"}

FILLED = """
	SET_PXE 0, ENTRY, HERE | V
	SEND_TO_USER user
user:
	cmpl $0, V + 0x5000			# the way to V's neighbours
	cmpl $2, V
	jne 1f
	int $0x80
1:	int $0x81
fault:
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	incl HIGH + FREE + 0x10000
	cmpl $1, HIGH + FREE + 0x10000
	jne stale
	add $4, %esp
	iretl
"""
UPGRADED = """
	SET_PXE PAGE1 | READ_ONLY, ENTRY, HERE | V
	SEND_TO_USER user
user:
	cmpl $1, V
	jne 1f
	movl $9, V
	cmpl $9, V
	jne 1f
	int $0x80
1:	int $0x81
fault:
	movl $PAGE1 | OPEN, HIGH + ENTRY
	mov $HIGH + ENTRY, %eax
	mov $HERE | UPDATE_DEFER | V, %edx
	VMI queue_UpdatePxE
	incl HIGH + FREE + 0x10000
	cmpl $1, HIGH + FREE + 0x10000
	jne stale
	add $4, %esp
	iretl
"""
INVALIDATED = """
	SET_PXE PAGE1 | OPEN, ENTRY, HERE | V
	SEND_TO_USER user
user:
	cmpl $1, V
	jne 1f
	int $0x82
1:	int $0x81
changed:
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	INVALIDATE V
	FIND 2, V
	FINISH 0
"""
INVALIDATED_ABOVE = """
	SET_PXE PAGE1 | OPEN, HIGH_TABLE + 0x800, HERE | (HIGH + V)
	INVALIDATE HIGH + V
	FIND 1, HIGH + V
	SET_PXE PAGE2 | OPEN, HIGH_TABLE + 0x800, HERE | (HIGH + V)
	INVALIDATE HIGH + V
	FIND 2, HIGH + V
	FINISH 0
"""
WITHHELD = """
	SET_PXE PAGE1 | CLEAN, ENTRY, HERE | V
	SEND_TO_USER user
user:
	cmpl $1, V
	jne 1f
	movl $9, V
	cmpl $9, V
	jne 1f
	int $0x80
1:	int $0x81
fault:
	FINISH STALE
"""
UNSEEN = ("queue.inc", "	jne ring_lower_curtain\n", "")
EVERYWHERE = ("ring.S", "	jae 3f\n	testb", "	testb")
UNABLE = ("queue_data.S", "QUEUE_ABLE_CURTAIN | ", "")
MISTAKES = {"filled": (FILLED, UNSEEN), "upgraded": (UPGRADED, UNSEEN)} | {
    "invalidated above": (INVALIDATED_ABOVE, EVERYWHERE)
}
SCENARIOS = {
    "invalidated": Scenario(INVALIDATED, (), ("a lowered curtain hides",)),
    "filled": Scenario(FILLED, (), ("a drain lifts the curtain",), ends=NO_PROGRESS),
    "withheld": Scenario(WITHHELD, (), ("what is withheld is marked",)),
}
SOURCES = [FILLED, UPGRADED, INVALIDATED, INVALIDATED_ABOVE, WITHHELD]
NAMES = ["filled", "upgraded", "invalidated", "invalidated above", "withheld"]


def source_of(rom: Rom, source: str) -> str:
    return f"\t.set HIGH, {HIGH:#x}\n" + with_symbols(rom, PRELUDE + source, HIGH)


def handlers(source: str) -> dict[int, str]:
    found = {**FAULTED, 0x82: "changed"}
    return {
        vector: label
        for vector, label in found.items()
        if label in {"passed", "stale"} or f"{label}:" in source
    }


RunSource = Callable[..., Run]


@pytest.fixture
def run_source(run_guest: Callable[..., Run]) -> RunSource:
    def run(source: str, rom: Rom, **about: Any) -> Run:
        return run_guest(
            source_of(rom, source),
            passes=False,
            handlers=handlers(source),
            rom=rom.data,
            policy=policy_named(POLICY),
            **about,
        )

    return run


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_the_rule_holds(run_source: RunSource, source: str, check: bool) -> None:
    run = run_source(source, build_rom(), check_shadow=check)
    assert run.outcome.kind is OutcomeKind.PASSED, (run.outcome, run.latest)
    assert run.complaints == ()


@pytest.mark.parametrize("source", [FILLED, UPGRADED], ids=["filled", "upgraded"])
def test_a_fault_of_ring_3_costs_one_exit(run_source: RunSource, source: str) -> None:
    """The fault itself costs none; the first access behind the curtain is the one."""
    run = run_source(source, build_rom())
    assert run.ledger.engine_events["bypassed_fault"] == 1
    assert Reason.PAGE_FAULT not in run.ledger.by_reason


def test_behind_the_curtain_nothing_is_left_to_invalidate(run_source: RunSource) -> None:
    run = run_source(INVALIDATED, build_rom())
    assert rings(run, Doorbell.INVALIDATE_PAGE) == 0
    assert run.ledger.engine_events["curtain"] == 2


def test_a_first_fetch_above_leaves_it_down(
    tiny_guest: Callable[..., Any], make_machine: Callable[..., Machine]
) -> None:
    """That is no exit, so nothing is drained: the next access below is what exits."""
    source = """
	cmpb $0xc3, HIGH + elsewhere
	jne stale
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	call elsewhere
	FINISH 0
	.balign 4096
elsewhere:
	ret
"""
    rom = build_rom()
    guest = tiny_guest(source_of(rom, source), handlers=handlers(source))
    machine = make_machine(guest, rom=rom.data, policy=policy_named(POLICY))
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    assert run.ledger.engine_events["nx_fetch"] > 0
    assert machine.vcpu.shadow.curtain.is_down


def test_a_rom_that_cannot_lower_it_is_not_trusted(
    run_source: RunSource, altered_rom: Callable[..., Rom]
) -> None:
    """Announced tables may be behind then, so their faults exit."""
    run = run_source(FILLED, altered_rom(*UNABLE))
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    assert run.ledger.by_reason[Reason.PAGE_FAULT].count == 1
    assert "bypassed_fault" not in run.ledger.engine_events


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_rom_is_noticed(
    run_source: RunSource, altered_rom: Callable[..., Rom], name: str
) -> None:
    source, mistake = MISTAKES[name]
    run = run_source(source, altered_rom(*mistake))
    assert str(run.outcome) == f"failed: the guest's check {STALE} failed"


def test_a_rule_taken_out_of_the_core_is_noticed(
    tiny_guest: Callable[..., Any], tmp_path: Path
) -> None:
    rom = build_rom()

    def files(scenario: Scenario) -> dict[str, bytes]:
        source = scenario.source
        return {"guest": tiny_guest(source_of(rom, source), handlers=handlers(source)).data}

    assert not_noticed(tmp_path, rom, SCENARIOS, files, policy=POLICY) == []
