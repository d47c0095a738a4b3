"""Interrupts at every moment: what they count as, and that the batch queue survives them."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from rombuilder.rom import Flavour, build_rom
from vmm.core.event import Reason
from vmm.core.mmu.checker import ShadowChecker
from vmm.core.outcome import OutcomeKind
from vmm.core.timers import Timers
from vmm.machine import Machine, MachineDescription, Run

VECTOR = 0x30
HANDLED = 0x106000
"""Where the guests count their interrupts."""


@dataclass
class Line:
    """A test-only interrupt controller: one line, one vector."""

    pending: bool = False
    acknowledged: int = 0
    on_acknowledge: Callable[[], None] = field(default=lambda: None)

    def acknowledge(self) -> int:
        assert self.pending
        self.pending = False
        self.acknowledged += 1
        self.on_acknowledge()
        return VECTOR

    def up(self) -> None:
        self.pending = True


@pytest.fixture
def interrupted(tiny_guest) -> Callable[..., tuple[Run, Line, Machine]]:
    """Run a guest whose handler is `irq`: at given times, or each `step` ns after the last."""

    def run(
        source: str, *, times: tuple[int, ...] = (), step: int = 0, **about
    ) -> tuple[Run, Line, Machine]:
        line, timers = Line(), Timers()
        guest = tiny_guest(source, handlers=about.pop("handlers", None), gates=None)
        gated = tiny_guest(source, pieces=irq_gate(guest.labels["irq"]))
        machine = Machine(
            MachineDescription(gated.data, memory=4 << 20, max_instructions=3_000_000, **about),
            interrupts=line,
            timers=timers,
        )

        def again() -> None:
            timers.at(machine.vcpu.meter.now() + step, line.up)

        for when in times:
            timers.at(when, line.up)
        if step:
            line.on_acknowledge = again
            timers.at(step, line.up)

        result = machine.run()
        return result, line, machine

    return run


def irq_gate(handler: int) -> dict[int, bytes]:
    """An interrupt gate, which keeps further interrupts out."""
    low = 0x080000 | handler & 0xFFFF
    high = handler & 0xFFFF0000 | 0x8E00
    return {0x109000 + 8 * VECTOR: low.to_bytes(4, "little") + high.to_bytes(4, "little")}


COUNTING = f"""
irq:	incl {HANDLED}
	iretl
"""


def counts(run: Run) -> tuple[int, int, int]:
    rows = run.ledger.by_reason
    return tuple(
        rows[reason].count if reason in rows else 0
        for reason in (Reason.INTERRUPT, Reason.INTERRUPT_WINDOW, Reason.HLT)
    )


def test_a_running_guest_is_interrupted(interrupted) -> None:
    run, line, machine = interrupted(
        f"start: PAGING\n sti\n1: cmpl $4, {HANDLED}\n jne 1b\n cli\n FINISH 0\n{COUNTING}",
        times=(3000, 3100, 4000, 5000),
    )
    assert run.outcome.ok, run.outcome
    assert counts(run) == (4, 0, 0)
    assert line.acknowledged == machine.memory.read32(HANDLED) == 4


def test_an_interrupt_waits_for_sti(interrupted) -> None:
    run, line, _ = interrupted(
        f"start: PAGING\n mov $5000, %ecx\n1: dec %ecx\n jnz 1b\n cmpl $0, {HANDLED}\n jne 2f\n"
        f" sti\n nop\n nop\n cmpl $1, {HANDLED}\n jne 2f\n FINISH 0\n2: FINISH 1\n{COUNTING}",
        times=(3000,),
    )
    assert run.outcome.ok, run.outcome
    assert counts(run) == (0, 1, 0)
    assert line.acknowledged == 1


def test_sti_lets_one_more_instruction_pass(interrupted) -> None:
    """STI, HLT: the interrupt that is pending already wakes it at once."""
    run, _, machine = interrupted(
        "start: PAGING\n mov $5000, %ecx\n1: dec %ecx\n jnz 1b\n sti\n hlt\nafter: FINISH 0\n"
        f"irq: mov (%esp), %eax\n cmp $after, %eax\n jne 2f\n incl {HANDLED}\n iretl\n"
        "2: FINISH 1\n",
        times=(3000,),
    )
    assert run.outcome.ok, run.outcome
    assert counts(run)[2] == 1
    assert machine.memory.read32(HANDLED) == 1


def test_halt_jumps_to_the_next_event(interrupted) -> None:
    run, _, _ = interrupted(
        f"start: PAGING\n mov $3, %ecx\n1: sti\n hlt\n cli\n dec %ecx\n jnz 1b\n"
        f" cmpl $3, {HANDLED}\n jne 2f\n FINISH 0\n2: FINISH 1\n{COUNTING}",
        times=(1_000_000, 2_000_000, 50_000_000),
    )
    assert run.outcome.ok, run.outcome
    assert counts(run) == (0, 0, 3)
    assert 50_000_000 <= run.virtual_ns < 50_010_000
    assert run.instructions < 200


def test_halt_with_nothing_to_wait_for(interrupted) -> None:
    run, _, _ = interrupted(f"start: PAGING\n1: sti\n hlt\n jmp 1b\n{COUNTING}", times=(9000,))
    assert run.outcome.kind is OutcomeKind.HALTED
    assert "nothing to wait for" in run.outcome.detail


def test_an_interrupt_from_ring_3(interrupted) -> None:
    run, _, machine = interrupted(
        f"""
start:	PAGING
	push $USER_DATA
	push $USER_STACK_TOP
	push $0x202
	push $USER_CODE
	push $user
	iretl
user:	cmpl $3, {HANDLED}
	jne user
	hlt
irq:	incl {HANDLED}
	testl $3, 4(%esp)
	jz 1f
	iretl
1:	FINISH 1
""",
        times=(3000, 4000, 5000),
    )
    # The HLT in ring 3 is a general-protection fault.
    assert run.outcome.detail == "the guest's check 269 failed"
    assert machine.memory.read32(HANDLED) == 3


@pytest.mark.parametrize("when", range(2500, 2560, 3))
def test_an_interrupt_changes_no_register_and_no_flag(interrupted, when: int) -> None:
    run, _, machine = interrupted(
        f"""
start:	PAGING
	mov $2500, %ecx
1:	dec %ecx
	jnz 1b
	sti
	mov $20, %ecx
	xor %eax, %eax
2:	stc
	adc %ecx, %eax
	mov %eax, %ebx
	clc
	sbb $0, %ebx
	cmp %eax, %ebx
	jne 3f
	dec %ecx
	jnz 2b
	cmp $230, %eax
	jne 3f
	cli
	FINISH 0
3:	FINISH 1
irq:	pushal
	xor %eax, %eax
	add $1, %eax
	incl {HANDLED}
	popal
	iretl
""",
        times=(when,),
    )
    assert run.outcome.ok, run.outcome
    assert machine.memory.read32(HANDLED) == 1


QUEUEING = f"""
	.set ROM, 0xc0000
	.set T, 0x200000
	.set U, 0x201000
	.set PAGES, 0x300000
	.set ROUNDS, 60

	.macro OFFER number, where
	mov $\\number, %eax
	mov $ROM + 0x88, %ecx
	call *%ecx
	cmp $1, %dl
	jne 9f					# nothing to do natively: `where` says so already
	mov %eax, \\where
9:
	.endm

	.macro ALLOCATE frame
	mov $\\frame, %eax
	mov $PAGE_PT, %edx
	xor %ecx, %ecx
	push $0
	push $0
	call *allocate_page
	add $8, %esp
	.endm

	.macro LAZY mode
	mov $\\mode, %eax
	call *set_lazy_mode
	.endm

start:	mov $PAGES, %edi
	mov $64, %ecx
1:	mov %edi, (%edi)			# each page holds its own address
	add $0x1000, %edi
	dec %ecx
	jnz 1b
	PAGING
	mov $ROM + 0x80, %ecx
	call *%ecx
	test %eax, %eax
	jnz bad_offer
	OFFER CALL_SetPxE, set_pxe
	OFFER CALL_InvalPage, inval_page
	OFFER CALL_AllocatePage, allocate_page
	OFFER CALL_SetLazyMode, set_lazy_mode
	OFFER CALL_SetLinearMapping, set_linear_mapping
	cmpl $0, set_pxe
	je bad_offer
	cmpl $0, inval_page
	je bad_offer
	cmpl $0, allocate_page
	je bad_offer
	xor %eax, %eax
	xor %edx, %edx
	mov $1024, %ecx
	push $0
	call *set_linear_mapping
	add $4, %esp
	ALLOCATE 0x200
	ALLOCATE 0x201
	movl $T | OPEN, DIRECTORY + 4
	movl $U | OPEN, DIRECTORY + 8
	sti
	xor %esi, %esi
round:	# One by one: fresh entries, then the same ones changed, which must be seen at once.
	mov %esi, %ebx
	mov $T, %edi
	mov $0x400000, %ebp
	call remap
	# In lazy mode: four entries, seen at the latest when they are invalidated.
	LAZY LAZY_MMU
	xor %ebp, %ebp
2:	lea (%esi,%ebp), %eax
	and $63, %eax
	shl $12, %eax
	add $PAGES | OPEN, %eax
	lea T + 0x800(,%ebp,4), %edx
	mov $UPDATE_PT, %ecx
	call *set_pxe
	inc %ebp
	cmp $4, %ebp
	jne 2b
	LAZY LAZY_NONE
	xor %ebp, %ebp
3:	lea (%esi,%ebp), %eax
	and $63, %eax
	shl $12, %eax
	add $PAGES, %eax
	mov %ebp, %edx
	shl $12, %edx
	push %eax
	push %edx
	lea 0x600000(%edx), %eax
	call *inval_page
	pop %edx
	pop %eax
	cmp %eax, 0x600000(%edx)
	jne bad_lazy
	inc %ebp
	cmp $4, %ebp
	jne 3b
	inc %esi
	cmp $ROUNDS, %esi
	jne round
	cli
	cmpl $0, {HANDLED}
	je bad_offer
	FINISH 0

# EBX = what to map, EDI = table, EBP = what the table maps: entry EBX mod 8.
remap:	mov %ebx, %eax
	and $63, %eax
	shl $12, %eax
	add $PAGES | OPEN, %eax
	mov %ebx, %edx
	and $7, %edx
	lea (%edi,%edx,4), %edx
	mov $UPDATE_PT, %ecx
	call *set_pxe
	mov %ebx, %eax
	and $7, %eax
	shl $12, %eax
	add %ebp, %eax
	push %eax
	call *inval_page
	pop %eax
	mov (%eax), %eax
	mov %ebx, %edx
	and $63, %edx
	shl $12, %edx
	add $PAGES, %edx
	cmp %eax, %edx
	jne bad_remap
	ret

irq:	pushal
	mov {HANDLED}, %ebx
	incl {HANDLED}
	mov $U, %edi
	mov $0x800000, %ebp
	call remap
	popal
	iretl

nothing:	ret
bad_offer:	FINISH 1
bad_lazy:	FINISH 2
bad_remap:	FINISH 3

	.data
	.balign 4
set_pxe:	.long 0
inval_page:	.long 0
allocate_page:	.long 0
set_lazy_mode:	.long nothing
set_linear_mapping:	.long nothing
	.text
"""


# The handler takes up to 950 ns, two rings of the doorbell included.
@pytest.mark.parametrize("queue", [2, 128])
@pytest.mark.parametrize("step", [*range(1000, 1100, 7), 1301, 2003])
def test_no_update_is_lost_to_an_interrupt(interrupted, step: int, queue: int) -> None:
    run, line, machine = interrupted(
        QUEUEING,
        step=step,
        rom=build_rom(Flavour.BATCHING, queue=queue).data,
    )
    ShadowChecker(machine.vcpu).check()
    assert run.outcome.ok, (run.outcome, line.acknowledged)
    assert run.complaints == ()
    assert machine.memory.read32(HANDLED) == line.acknowledged > 0
    interrupt, window, _ = counts(run)
    assert interrupt + window == line.acknowledged
    assert run.paravirt.updates == 60 * 5 + line.acknowledged


def test_interrupted_runs_repeat(interrupted) -> None:
    rom = build_rom(Flavour.BATCHING).data
    first, second = (interrupted(QUEUEING, step=1009, rom=rom)[0] for _ in range(2))
    assert first == second
