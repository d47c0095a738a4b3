"""When a change of a page table must be seen: rules that a workload does not notice.

Each scenario is a small guest that calls the ROM. It passes with either ROM and ends as STALE
(or SEEN) once its rule is broken: by a mistake in the ROM, or by a rule taken out of the core.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rombuilder.rom import Rom, Visibility, build_rom
from romrules import ENDINGS, SEEN, Mistake, Scenario, calls, not_noticed, rings, with_symbols
from vmi.doorbell import Doorbell
from vmm.core.outcome import OutcomeKind
from vmm.machine import Run

# PAGE1, PAGE2 and PAGE3 hold 1, 2 and 3. V is mapped to PAGE1 by ENTRY, in a table that is in
# use when the ROM is found. HIGH is mapped by FAR_TABLE, which AllocatePage announces.
PRELUDE = f"""
	.set V, 0x200000
	.set ENTRY, TABLE + 0x800
	.set PAGE1, 0x201000
	.set PAGE2, 0x202000
	.set PAGE3, 0x203000
	.set COLD, 0x204000
	.set WARM, 0x205000
	.set WARM_ENTRY, TABLE + 0x814
	.set OTHER_DIRECTORY, 0x206000
	.set OTHER_TABLE, 0x207000
	.set FAR_TABLE, 0x208000
	.set NEW_TABLE, 0x209000
	.set HIGH, 0x400000
	.set HIGH_SLOT, DIRECTORY + 4
{calls()}
	.macro FLUSH
	mov $TLB_FLUSH_TLB, %eax
	VMI queue_FlushTLB
	.endm

	.macro ALLOCATE page, kind
	push $0
	push $0
	mov $\\page >> 12, %eax
	mov $PAGE_\\kind, %edx
	xor %ecx, %ecx
	VMI queue_AllocatePage
	add $8, %esp
	.endm

	.macro RELEASE page, kind
	mov $\\page >> 12, %eax
	mov $PAGE_\\kind, %edx
	VMI queue_ReleasePage
	.endm

# A drain and nothing else.
	.macro DRAIN
	invlpg WARM
	.endm

# HIGH is mapped to PAGE1, and the page above it.
	.macro MAP_HIGH
	movl $PAGE1 | OPEN, FAR_TABLE
	movl $PAGE1 | OPEN, FAR_TABLE + 4
	ALLOCATE FAR_TABLE, PT
	SET_PXE FAR_TABLE | OPEN, HIGH_SLOT, UPDATE_PD
	FIND 1, HIGH
	FIND 1, HIGH + 0x1000
	.endm

# V or HIGH is read, and then a store to it faults: the handler goes on at its own label.
	.macro COPY_ON_WRITE entry, address
	SET_PXE PAGE1 | READ_ONLY, \\entry, UPDATE_PT
	INVALIDATE \\address
	FIND 1, \\address
	movl $9, \\address
	jmp stale
	.endm

seen:
	FINISH SEEN
{ENDINGS}
# The ROM is found and told of the linear map, and all it is made of has been touched.
attach:
	movl $1, PAGE1
	movl $2, PAGE2
	movl $3, PAGE3
	movl $PAGE1 | OPEN, ENTRY
	movl $COLD | 7, TABLE + 0x810
	PAGING
	VMI vmi_init
	test %eax, %eax
	jnz stale
	LINEAR
	SET_PXE WARM | OPEN, WARM_ENTRY, UPDATE_PT
	INVALIDATE WARM
	FIND 0, WARM
	FIND 1, V
	ret

start:
"""


SAYS_NOTHING = Mistake(
    "queue.inc", "movl $1, queue_downgrade - \\anchor(\\base)", "# nothing is said"
)
INVALIDATES_NOTHING = Mistake(
    "ring.S",
    "queue_InvalPage:			# EAX = virtual address\n",
    "queue_InvalPage:			# EAX = virtual address\n\tret\n",
)
DEFER_IS_UPGRADE = Mistake(
    "queue.S",
    "	IF_FAULT_PAGE %eax, queue_header-2b, 4f\n",
    "	test $UPDATE_DEFER, %ecx\n	jnz 4f\n	IF_FAULT_PAGE %eax, queue_header-2b, 4f\n",
)
PRESENT_IS_FRESH = Mistake(
    "queue.S", "	jnz 3f\n	call 1f\n1:	pop %eax\n", "	call 1f\n1:	pop %eax\n"
)
RELEASE_IS_HARMLESS = Mistake(
    "queue.S",
    "	ENQUEUE %edx, %eax, %ecx, queue_header-1b\n	SAY_DOWNGRADE %eax, 1b\n2:",
    "	ENQUEUE %edx, %eax, %ecx, queue_header-1b\n2:",
)
ANY_LEVEL_MATCHES = Mistake("queue.inc", "and $QUEUE_FAULT_PAGE_MASK", "and $0xfffff010")
ANY_PAGE_MATCHES = Mistake("queue.inc", "and $QUEUE_FAULT_PAGE_MASK", "and $0x1f")
ADOPTS_NOTHING = Mistake("slots.S", "	jmp ring_adopt_tables\n", "	ret\n")


AFTER_CHANGE = "call attach\n SET_PXE PAGE2 | OPEN, ENTRY, HERE | V\n {tell}\n FIND 2, V\n FINISH 0"
FAULTED = {14: "fault"}
SCENARIOS = {
    "a change, InvalPage": Scenario(
        AFTER_CHANGE.format(tell="INVALIDATE V"),
        (SAYS_NOTHING, INVALIDATES_NOTHING, PRESENT_IS_FRESH),
        ("a doorbell drains",),
    ),
    "a change, InvalPage, and code is fetched": Scenario(
        """
	.set RETURN_1, 0xc301b0		# mov $1, %al; ret
	.set RETURN_2, 0xc302b0
	call attach
	movl $RETURN_1, PAGE1
	movl $RETURN_2, PAGE2
	cmpl $RETURN_1, V
	jne stale
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	INVALIDATE V
	mov $V, %edx
	call *%edx
	cmp $2, %al
	jne stale
	FINISH 0
""",
        (SAYS_NOTHING, INVALIDATES_NOTHING),
        ("a doorbell drains",),
    ),
    "a change, FlushTLB": Scenario(
        AFTER_CHANGE.format(tell="FLUSH"),
        (SAYS_NOTHING, PRESENT_IS_FRESH),
        ("a doorbell drains",),
    ),
    "a change, SetCR3": Scenario(
        AFTER_CHANGE.format(tell="SWITCH DIRECTORY"), (), ("a doorbell drains",)
    ),
    "a change, MOV CR3": Scenario(
        AFTER_CHANGE.format(tell="mov %cr3, %eax\n mov %eax, %cr3"), (), ("a load of CR3 drains",)
    ),
    "a change, INVLPG": Scenario(AFTER_CHANGE.format(tell="invlpg V"), (), ("INVLPG drains",)),
    "a change, CR4.PGE": Scenario(
        AFTER_CHANGE.format(tell="mov %cr4, %eax\n xor $0x80, %eax\n mov %eax, %cr4"),
        (),
        ("a load of CR4 drains",),
    ),
    "a change, CR0.PG": Scenario(
        """
	.macro OFF_AND_ON
	mov %cr0, %eax
	btr $31, %eax
	mov %eax, %cr0
	bts $31, %eax
	mov %eax, %cr0
	.endm
	call attach
	OFF_AND_ON
	FIND 1, V
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	OFF_AND_ON
	FIND 2, V
	FINISH 0
""",
        (),
        ("a load of CR0 drains",),
    ),
    "a stored change, UpdatePxE": Scenario(
        """
	call attach
	movl $PAGE2 | OPEN, ENTRY
	mov $ENTRY, %eax
	mov $HERE | V, %edx
	VMI queue_UpdatePxE
	INVALIDATE V
	FIND 2, V
	FINISH 0
""",
        (SAYS_NOTHING,),
    ),
    "a right taken away": Scenario(
        """
	call attach
	movl $1, V
	SET_PXE PAGE1 | READ_ONLY, ENTRY, HERE | V
	INVALIDATE V
	movl $9, V
	jmp stale
fault:
	FIND 1, V
	FINISH 0
""",
        (SAYS_NOTHING,),
        handlers=FAULTED,
    ),
    "DEFER is no upgrade": Scenario(
        """
	call attach
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | UPDATE_DEFER | V
	INVALIDATE V
	FIND 2, V
	movl $PAGE3 | OPEN, ENTRY
	mov $ENTRY, %eax
	mov $HERE | UPDATE_DEFER | V, %edx
	VMI queue_UpdatePxE
	INVALIDATE V
	FIND 3, V
	FINISH 0
""",
        (SAYS_NOTHING, DEFER_IS_UPGRADE),
    ),
    "a fault drains what then needs no InvalPage": Scenario(
        """
	call attach
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	FIND 0, COLD
	INVALIDATE V
	FIND 2, V
	FINISH 0
""",
        (),
        ("the TLB is flushed after a drain",),
    ),
    "a fault drains what takes a right away": Scenario(
        """
	call attach
	movl $1, V
	SET_PXE PAGE1 | READ_ONLY, ENTRY, HERE | V
	FIND 0, COLD
	INVALIDATE V
	movl $9, V
	jmp stale
fault:
	FINISH 0
""",
        (),
        ("the TLB is flushed after a drain",),
        handlers=FAULTED,
    ),
    "what becomes present needs no InvalPage": Scenario(
        """
	call attach
	SET_PXE 0, ENTRY, HERE | V
	INVALIDATE V
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	FIND 2, V
	FINISH 0
fault:
	FINISH STALE
""",
        (),
        ("a doorbell drains",),
        handlers=FAULTED,
    ),
    "a fault is judged after a drain": Scenario(
        """
	call attach
	SET_PXE PAGE1 | READ_ONLY, ENTRY, HERE | V
	INVALIDATE V
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	movl $9, V
	FIND 9, PAGE2
	FIND 1, PAGE1
	FINISH 0
fault:
	FINISH STALE
""",
        (),
        ("a doorbell drains",),
        handlers=FAULTED,
    ),
    "cleared without a call until ReleasePage": Scenario(
        """
	call attach
	MAP_HIGH
	movl $0, FAR_TABLE
	FIND 1, HIGH
	RELEASE FAR_TABLE, PT
	FLUSH
	mov HIGH, %eax
	jmp stale
fault:
	FINISH 0
""",
        (RELEASE_IS_HARMLESS,),
        ("releasing drops the shadow",),
        handlers=FAULTED,
    ),
    "a page that was released is trapped again": Scenario(
        """
	call attach
	MAP_HIGH
	RELEASE FAR_TABLE, PT
	FLUSH
	FIND 1, HIGH
	movl $PAGE2 | OPEN, FAR_TABLE
	invlpg HIGH
	FIND 2, HIGH
	FINISH 0
""",
        (),
        ("releasing traces again",),
    ),
    "copy on write": Scenario(
        """
	call attach
	COPY_ON_WRITE ENTRY, V
fault:
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	INVALIDATE V
	FIND 2, V
	FINISH 0
""",
        (),
        ("a fault drops its translation",),
        handlers=FAULTED,
    ),
    "copy on write, another page too": Scenario(
        """
	call attach
	FIND 0, WARM
	COPY_ON_WRITE ENTRY, V
fault:
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	SET_PXE PAGE3 | OPEN, WARM_ENTRY, HERE | WARM
	INVALIDATE V
	INVALIDATE WARM
	FIND 3, WARM
	FIND 2, V
	FINISH 0
""",
        (ANY_PAGE_MATCHES,),
        handlers=FAULTED,
    ),
    "copy on write, read again before": Scenario(
        """
	call attach
	COPY_ON_WRITE ENTRY, V
fault:
	FIND 1, V
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	INVALIDATE V
	FIND 2, V
	FINISH 0
""",
        (),
        ("a fill ends the fault page",),
        handlers=FAULTED,
    ),
    "copy on write, twice": Scenario(
        """
	call attach
	COPY_ON_WRITE ENTRY, V
fault:
	SET_PXE PAGE3 | READ_ONLY, ENTRY, HERE | V
	INVALIDATE V
	DRAIN
	FIND 3, V
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	INVALIDATE V
	FIND 2, V
	FINISH 0
""",
        (),
        ("a drain ends the fault page",),
        handlers=FAULTED,
    ),
    "copy on write, its table's shadow made anew before": Scenario(
        """
	call attach
	COPY_ON_WRITE ENTRY, V
fault:
	ALLOCATE TABLE, PT
	DRAIN
	FIND 1, PAGE1
	FIND 1, V
	SET_PXE PAGE2 | OPEN, ENTRY, HERE | V
	INVALIDATE V
	FIND 2, V
	FINISH 0
""",
        (),
        ("a fill elsewhere ends the fault page",),
        handlers=FAULTED,
    ),
    "copy on write, the way to its table cut before": Scenario(
        """
	call attach
	MAP_HIGH
	SET_PXE PAGE1 | READ_ONLY, FAR_TABLE, UPDATE_PT
	INVALIDATE HIGH
	FIND 1, HIGH
	SET_PXE FAR_TABLE | OPEN, HIGH_SLOT, UPDATE_PD
	movl $9, HIGH
	jmp stale
fault:
	FIND 1, HIGH + 0x1000
	FIND 1, HIGH
	SET_PXE PAGE2 | OPEN, FAR_TABLE, HERE | HIGH
	INVALIDATE HIGH
	FIND 2, HIGH
	FINISH 0
""",
        (),
        ("a fill elsewhere ends the fault page",),
        handlers=FAULTED,
    ),
    "copy on write, one table at two places": Scenario(
        """
	call attach
	MAP_HIGH
	SET_PXE FAR_TABLE | OPEN, HIGH_SLOT + 4, UPDATE_PD
	SET_PXE PAGE1 | READ_ONLY, FAR_TABLE, UPDATE_PT
	INVALIDATE HIGH
	FIND 1, HIGH
	SET_PXE FAR_TABLE | OPEN, HIGH_SLOT, UPDATE_PD
	movl $9, HIGH
	jmp stale
fault:
	FIND 1, HIGH + 0x400000
	SET_PXE PAGE2 | OPEN, FAR_TABLE, HERE | HIGH
	INVALIDATE HIGH + 0x400000
	FIND 2, HIGH + 0x400000
	FINISH 0
""",
        (),
        ("a fill elsewhere ends the fault page",),
        handlers=FAULTED,
    ),
    "copy on write, a directory's entry changed": Scenario(
        """
	call attach
	MAP_HIGH
	movl $PAGE2 | OPEN, NEW_TABLE
	movl $PAGE2 | OPEN, NEW_TABLE + 4
	ALLOCATE NEW_TABLE, PT
	COPY_ON_WRITE FAR_TABLE, HIGH
fault:
	SET_PXE NEW_TABLE | OPEN, HIGH_SLOT, UPDATE_PD | UPDATE_CURRENT_AS | HIGH
	FLUSH
	FIND 2, HIGH + 0x1000
	FINISH 0
""",
        (ANY_LEVEL_MATCHES,),
        handlers=FAULTED,
    ),
    "a trapped store, InvalPage": Scenario(
        """
	call attach
	MAP_HIGH
	RELEASE FAR_TABLE, PT
	FLUSH
	FIND 1, HIGH
	movl $PAGE2 | OPEN, FAR_TABLE
	INVALIDATE HIGH
	FIND 2, HIGH
	FINISH 0
""",
        (),
        ("the TLB is flushed after a drain",),
    ),
    "tables of the boot are adopted": Scenario(
        """
	call attach
	movl $PAGE2 | OPEN, ENTRY
	FIND 1, V, seen
	INVALIDATE V
	FIND 1, V, seen
	FINISH 0
""",
        (ADOPTS_NOTHING,),
        ("tables are adopted",),
        ends=SEEN,
    ),
    "an adopted table is told of": Scenario(
        """
	call attach
	movl $PAGE2 | OPEN, ENTRY
	FIND 1, V, seen
	SET_PXE PAGE3 | OPEN, ENTRY, HERE | V
	INVALIDATE V
	FIND 3, V
	FINISH 0
""",
        (SAYS_NOTHING,),
    ),
    "AllocatePage of a page that is shadowed": Scenario(
        """
	call attach
	MAP_HIGH
	movl $PAGE2 | OPEN, FAR_TABLE
	FIND 1, HIGH, seen
	ALLOCATE FAR_TABLE, PT
	DRAIN
	FIND 2, HIGH
	FINISH 0
""",
        (),
        ("announcing drops the shadow",),
    ),
    "AllocatePage of the directory in use": Scenario(
        """
	call attach
	MAP_HIGH
	movl $PAGE2 | OPEN, NEW_TABLE
	movl $NEW_TABLE | OPEN, HIGH_SLOT
	FIND 1, HIGH, seen
	ALLOCATE DIRECTORY, PD
	DRAIN
	FIND 2, HIGH
	FINISH 0
""",
        (),
        ("announcing drops the shadow",),
    ),
    "ReleasePage of the directory in use": Scenario(
        """
	call attach
	MAP_HIGH
	movl $PAGE2 | OPEN, NEW_TABLE
	RELEASE DIRECTORY, PD
	FLUSH
	FIND 1, HIGH
	movl $NEW_TABLE | OPEN, HIGH_SLOT
	invlpg HIGH
	FIND 2, HIGH
	FINISH 0
""",
        (),
        ("releasing traces again",),
    ),
    "changed before the queue, invalidated after": Scenario(
        """
	movl $1, PAGE1
	movl $2, PAGE2
	movl $PAGE1 | OPEN, ENTRY
	PAGING
	FIND 1, V
	movl $PAGE2 | OPEN, ENTRY
	RING DOORBELL_ATTACH, ROM_queue_header
	FIND 2, V
	FINISH 0
""",
        (),
        ("the TLB is flushed at ATTACH",),
    ),
}

# Two address spaces, both known to the shadow: V leads to PAGE1 in one and to PAGE3 in the other.
SWITCHED = """
	call attach
	xor %ecx, %ecx
1:	mov TABLE(,%ecx,4), %eax
	mov %eax, OTHER_TABLE(,%ecx,4)
	inc %ecx
	cmp $1024, %ecx
	jne 1b
	movl $PAGE3 | OPEN, OTHER_TABLE + 0x800
	movl $OTHER_TABLE | OPEN, OTHER_DIRECTORY
	ALLOCATE OTHER_DIRECTORY, PD
	ALLOCATE OTHER_TABLE, PT
	SWITCH OTHER_DIRECTORY
	FIND 3, V
	SWITCH DIRECTORY
	COPY_ON_WRITE ENTRY, V
fault:
	{switch}
	FIND 3, V
	SET_PXE PAGE2 | OPEN, OTHER_TABLE + 0x800, HERE | V
	INVALIDATE V
	FIND 2, V
	FINISH 0
"""
for name, switch in {
    "SetCR3": "SWITCH OTHER_DIRECTORY",
    "MOV CR3": "mov $OTHER_DIRECTORY, %eax\n mov %eax, %cr3",
}.items():
    SCENARIOS[f"copy on write, {name} before"] = Scenario(
        SWITCHED.format(switch=switch), (), ("CR3 ends the fault page",), FAULTED
    )


def source_of(rom: Rom, scenario: Scenario) -> str:
    return with_symbols(rom, PRELUDE + scenario.source)


RunScenario = Callable[..., Run]


@pytest.fixture
def run_scenario(run_guest: Callable[..., Run]) -> RunScenario:
    def run(scenario: Scenario, rom: Rom, **about: object) -> Run:
        return run_guest(
            source_of(rom, scenario),
            passes=False,
            handlers=scenario.handlers,
            rom=rom.data,
            **about,
        )

    return run


@pytest.mark.parametrize("visibility", list(Visibility))
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_rule_holds(run_scenario: RunScenario, name: str, visibility: Visibility) -> None:
    run = run_scenario(SCENARIOS[name], build_rom(visibility=visibility))
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    assert run.complaints == ()


@pytest.mark.parametrize(
    ("name", "rung"), [("copy on write", 2), ("copy on write, read again before", 3)]
)
def test_copying_on_write_needs_no_exit_to_invalidate(
    run_scenario: RunScenario, name: str, rung: int
) -> None:
    """Two rings are the scenario's own; the handler's is saved while the promise holds."""
    run = run_scenario(SCENARIOS[name], build_rom())
    assert rings(run, Doorbell.INVALIDATE_PAGE) == rung


def test_the_checker_allows_clears_without_a_call(run_scenario: RunScenario) -> None:
    scenario = SCENARIOS["cleared without a call until ReleasePage"]
    outcome = run_scenario(scenario, build_rom(), check_shadow=True).outcome
    assert outcome.kind is OutcomeKind.PASSED, outcome


def test_the_checker_allows_no_other_change_without_a_call(run_scenario: RunScenario) -> None:
    scenario = Scenario("call attach\n movl $PAGE2 | OPEN, ENTRY\n DRAIN\n FINISH 0")
    outcome = run_scenario(scenario, build_rom(), check_shadow=True).outcome
    assert outcome.kind is OutcomeKind.ENGINE_FAILURE, outcome


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


def test_a_rule_taken_out_of_the_core_is_noticed(
    tiny_guest: Callable[..., Any], tmp_path: Path
) -> None:
    rom = build_rom()

    def files(scenario: Scenario) -> dict[str, bytes]:
        guest = tiny_guest(source_of(rom, scenario), handlers=scenario.handlers)
        return {"guest": guest.data}

    assert not_noticed(tmp_path, rom, SCENARIOS, files) == []
