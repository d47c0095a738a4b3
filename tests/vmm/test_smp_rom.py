"""Two CPUs and the batching ROM: what one changes, the other sees when it invalidates.

Each scenario is a small guest whose CPUs hand each other the turn, and ends as STALE once its
rule is broken: by a mistake in the ROM, or by a rule taken out of the core.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from apstart import TRAMPOLINE, trampoline
from rombuilder.rom import Rom, Visibility, build_rom
from romrules import (
    ENDINGS,
    ROM_ADDRESS,
    Mistake,
    Scenario,
    calls,
    not_noticed,
    rings,
    with_symbols,
)
from vmi.doorbell import Doorbell
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription, Run

if TYPE_CHECKING:
    from conftest import MakeGuest

# PAGE1 and PAGE2 hold 1 and 2. V is mapped to PAGE1 by ENTRY; in the other directory, which
# shares all tables but the first, by OTHER_ENTRY.
PRELUDE = f"""
	.set V, 0x200000
	.set ENTRY, TABLE + 0x800
	.set PAGE1, 0x201000
	.set PAGE2, 0x202000
	.set OTHER_DIRECTORY, 0x203000
	.set OTHER_TABLE, 0x204000
	.set OTHER_ENTRY, OTHER_TABLE + 0x800
	.set APIC, 0x205000
	.set APIC_ENTRY, TABLE + 0x814
	.set TURN, 0x206000
	.set AGAIN, TURN + 4
	.set VECTOR, 0x40

{calls("several")}
	.macro RUNS_ON directory
	VMI several_GetCR3
	cmp $\\directory, %eax
	jne stale
	.endm

	.macro GIVE turn
	movl $\\turn, TURN
	.endm

	.macro AWAIT turn
9:	pause
	cmpl $\\turn, TURN
	jne 9b
	.endm

	.macro SEND to, command
	movl $\\to << 24, APIC + 0x310
	movl $\\command, APIC + 0x300
	.endm

{ENDINGS}
rest:
	hlt
	jmp rest

start:
	movl $1, PAGE1
	movl $2, PAGE2
	movl $PAGE1 | OPEN, ENTRY
	movl $0xfee00000 | 0x73, APIC_ENTRY
	xor %ecx, %ecx
1:	mov TABLE(,%ecx,4), %eax
	mov %eax, OTHER_TABLE(,%ecx,4)
	inc %ecx
	cmp $1024, %ecx
	jne 1b
	movl $OTHER_TABLE | OPEN, OTHER_DIRECTORY
	PAGING
	movl $0x1ff, APIC + 0xf0
	VMI vmi_init
	test %eax, %eax
	jnz stale
	LINEAR
	SWITCH OTHER_DIRECTORY			# so that its tables are adopted as well
	LINEAR
	SWITCH DIRECTORY
	SET_PXE PAGE1 | OPEN, ENTRY, HERE | V
	INVALIDATE V
	FIND 1, V
	GIVE 101
	AWAIT 102
	FIND 1, V				# now both have it cached
	GIVE 1
	jmp first

ap_start:
	mov $KERNEL_DATA, %eax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	lidt idt_pointer
	mov $0x180000, %esp
	AWAIT 101
	PAGING
	movl $0x1ff, APIC + 0xf0
	VMI several_GetCR3			# it has asked for its home
	FIND 1, V
	GIVE 102
	AWAIT 1
	jmp second
"""


SAYS_IT_TO_ITSELF = Mistake(
    "several.S",
    "	call 1f\n1:	pop %ecx\n	SAY_DOWNGRADE %ecx, 1b\n	ret\n8:",
    "	movl $1, QUEUE_DOWNGRADE_OFFSET(%eax)\n	ret\n8:",
)
RELEASE_SAYS_IT_TO_ITSELF = Mistake(
    "several.S",
    "	call 1f\n1:	pop %ecx\n	SAY_DOWNGRADE %ecx, 1b\n2:",
    "	movl $1, QUEUE_DOWNGRADE_OFFSET(%eax)\n2:",
)
ONE_HOME_FOR_ALL = Mistake("several.S", "imul $HOME_STRIDE, %eax, %eax", "imul $0, %eax, %eax")
KEEPS_OLD_HOME = Mistake("several.S", "	movl $0, HOME_CR3(%eax)\n", "")

SCENARIOS = {
    # The second CPU has queued a change and told nobody but the first one, in memory.
    "told in memory": Scenario(
        """
first:	AWAIT 2
	INVALIDATE V
	FIND 2, V
	FINISH 0
second:
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	GIVE 2
	jmp rest
""",
        (SAYS_IT_TO_ITSELF,),
        ("a drain looks into every queue",),
    ),
    # The other way round: the first CPU's word is the word of all, whoever's mistake it is.
    "told in memory by the first": Scenario(
        """
first:	AWAIT 2
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	GIVE 3
	jmp rest
second:
	GIVE 2
	AWAIT 3
	INVALIDATE V
	FIND 2, V
	FINISH 0
""",
        (),
        ("a drain looks into every queue",),
    ),
    "a table released, told in memory": Scenario(
        """
first:	AWAIT 2
	INVALIDATE V
	FIND 2, V
	FINISH 0
second:
	movl $PAGE2 | OPEN, ENTRY		# a table that goes away need not be told of
	mov $TABLE >> 12, %eax
	mov $PAGE_PT, %edx
	VMI several_ReleasePage
	GIVE 2
	jmp rest
""",
        (RELEASE_SAYS_IT_TO_ITSELF,),
        ("a drain looks into every queue",),
    ),
    # It invalidates for itself first, so nothing waits any more when the first one does.
    "invalidated there before": Scenario(
        """
first:	AWAIT 2
	INVALIDATE V
	FIND 2, V
	FINISH 0
second:
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	INVALIDATE V
	FIND 2, V
	GIVE 2
	jmp rest
""",
        (),
        ("the other CPUs' TLBs follow a drain",),
    ),
    # As Linux shoots down for an address space that is not its own: no invalidation here.
    "told by interrupt": Scenario(
        """
first:	sti
1:	pause
	jmp 1b
shot:
	INVALIDATE V
	FIND 2, V
	FINISH 0
second:
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	SEND 0, VECTOR
	jmp rest
""",
        (),
        ("the other CPUs' TLBs follow a drain",),
        {0x40: "shot"},
    ),
    "a load of CR3 there": Scenario(
        """
first:	AWAIT 2
	SWITCH DIRECTORY
	FIND 2, V
	FINISH 0
second:
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	GIVE 2
	jmp rest
""",
        (),
        ("a drain looks into every queue",),
    ),
    "an INVLPG there": Scenario(
        """
first:	AWAIT 2
	invlpg V
	FIND 2, V
	FINISH 0
second:
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	GIVE 2
	jmp rest
""",
        (),
        ("a drain looks into every queue",),
    ),
    "each has its CR3": Scenario(
        """
first:	AWAIT 2
	RUNS_ON DIRECTORY
	GIVE 3
	jmp rest
second:
	SWITCH OTHER_DIRECTORY
	RUNS_ON OTHER_DIRECTORY
	GIVE 2
	AWAIT 3
	RUNS_ON OTHER_DIRECTORY
	FINISH 0
""",
        (ONE_HOME_FOR_ALL,),
    ),
    # The first CPU holds the promise that V is not cached; that is its V, not the second one's.
    "each has its fault page": Scenario(
        """
first:	AWAIT 2
	SET_PXE PAGE1 | READ_ONLY, ENTRY, HERE | V
	INVALIDATE V
	FIND 1, V
	movl $9, V
	jmp stale
fault:	GIVE 3
	jmp rest
second:
	SWITCH OTHER_DIRECTORY
	FIND 1, V
	GIVE 2
	AWAIT 3
	SET_PXE PAGE2 | OPEN, OTHER_ENTRY, HERE | V
	INVALIDATE V
	FIND 2, V
	FINISH 0
""",
        (ONE_HOME_FOR_ALL,),
        (),
        {14: "fault"},
    ),
    "started again": Scenario(
        """
first:	AWAIT 2
	movl $1, AGAIN
	SEND 1, 0x4500				# INIT, and start-up at the same place
	SEND 1, 0x4608
	GIVE 101
	AWAIT 102
	GIVE 1
	jmp rest
second:
	cmpl $0, AGAIN
	jne 1f
	SWITCH OTHER_DIRECTORY
	GIVE 2
	jmp rest
1:	RUNS_ON DIRECTORY
	FINISH 0
""",
        (KEEPS_OLD_HOME,),
        ("INIT takes the home away",),
    ),
}


def source_of(rom: Rom, scenario: Scenario) -> str:
    return with_symbols(rom, PRELUDE + scenario.source)


RunScenario = Callable[..., Run]


@pytest.fixture
def run_scenario(tiny_guest: MakeGuest) -> RunScenario:
    def run(scenario: Scenario, rom: Rom, **about: object) -> Run:
        guest = tiny_guest(source_of(rom, scenario), handlers=scenario.handlers)
        machine = Machine(
            MachineDescription(
                guest.data,
                rom=rom.data,
                memory=4 << 20,
                cpus=2,
                max_instructions=2_000_000,
                **about,  # type: ignore[arg-type]
            )
        )
        machine.memory.load(TRAMPOLINE, trampoline(guest))
        machine.processors[1].startup(TRAMPOLINE >> 12)
        return machine.run()

    return run


@pytest.mark.parametrize("visibility", list(Visibility))
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_rule_holds(run_scenario: RunScenario, name: str, visibility: Visibility) -> None:
    run = run_scenario(SCENARIOS[name], build_rom(visibility=visibility))
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    assert run.complaints == ()


def test_the_shadow_is_right_but_for_what_is_queued(run_scenario: RunScenario) -> None:
    run = run_scenario(SCENARIOS["told in memory"], build_rom(), check_shadow=True)
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    assert run.shadow_entries_checked > 0


MISTAKES = [
    pytest.param(name, mistake, id=f"{name}-{number}")
    for name, scenario in SCENARIOS.items()
    for number, mistake in enumerate(scenario.mistakes)
]


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_a_mistake_in_the_rom_is_noticed(
    run_scenario: RunScenario, altered_rom: Callable[..., Rom], name: str, mistake: Mistake
) -> None:
    scenario = SCENARIOS[name]
    run = run_scenario(scenario, altered_rom(mistake.source, mistake.old, mistake.new))
    assert str(run.outcome) == scenario.ending


def test_a_rule_taken_out_of_the_core_is_noticed(tiny_guest: MakeGuest, tmp_path: Path) -> None:
    rom = build_rom()

    def files(scenario: Scenario) -> dict[str, bytes]:
        guest = tiny_guest(source_of(rom, scenario), handlers=scenario.handlers)
        return {"guest": guest.data, "trampoline": trampoline(guest)}

    assert not_noticed(tmp_path, rom, SCENARIOS, files) == []


def test_a_shootdown_costs_its_receiver_no_ring(run_scenario: RunScenario) -> None:
    """The sender's access to its APIC has drained its queue, and flushed the receiver's TLB."""
    told = run_scenario(SCENARIOS["told by interrupt"], build_rom())
    assert rings(told, Doorbell.INVALIDATE_PAGE) == 1, "the one while it set up"
    there_before = run_scenario(SCENARIOS["invalidated there before"], build_rom())
    assert rings(there_before, Doorbell.INVALIDATE_PAGE) == 2


def test_each_cpu_asks_for_its_home_once(run_scenario: RunScenario) -> None:
    run = run_scenario(SCENARIOS["each has its CR3"], build_rom())
    assert rings(run, Doorbell.FIND_HOME) == 2


def test_too_few_homes_leave_page_tables_native(tiny_guest: MakeGuest) -> None:
    """A ROM that knows one CPU would take one's CR3 for another's."""
    rom = build_rom(defines={"QUEUE_HOMES": 1})
    symbols = "".join(
        f"\t.set ROM_{name}, {ROM_ADDRESS + rom.symbols[name]:#x}\n"
        for name in ("vmi_init", "get_reloc")
    )
    guest = tiny_guest(
        symbols
        + """
	.macro OFFERS call, kind
	mov $CALL_\\call, %eax
	call *%esi
	cmp $\\kind, %dl
	jne 1f
	.endm

start:	PAGING
	mov $ROM_vmi_init, %esi
	call *%esi
	mov $ROM_get_reloc, %esi
	OFFERS IODelay, RELOC_NOP		# the host is there
	OFFERS SetPxE, RELOC_NONE
	OFFERS GetCR3, RELOC_NONE
	OFFERS InvalPage, RELOC_NONE
	FINISH 0
1:	FINISH 1
"""
    )
    kinds = {}
    for cpus in (1, 2):
        about = MachineDescription(guest.data, rom=rom.data, memory=4 << 20, cpus=cpus)
        kinds[cpus] = Machine(about).run().outcome.kind
    assert kinds == {1: OutcomeKind.FAILED, 2: OutcomeKind.PASSED}
