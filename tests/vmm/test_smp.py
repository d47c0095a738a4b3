"""Several virtual CPUs: real-mode start-up, turns, one shadow, and code that others wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from apstart import MARK, MARKER, TRAMPOLINE, trampoline
from vmi.apstate import ApState
from vmm.core.errors import BadDescription
from vmm.core.event import Event, Reason
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription, Run

if TYPE_CHECKING:
    from conftest import MakeGuest

PAGE = TRAMPOLINE >> 12

COMMON = """
	.set COUNTER, 0x200000
	.set LOCK, 0x200040
	.set PLAIN, 0x200080
	.set READY, 0x2000c0
	.set SHARED, 0x300000
ap_start:
	mov $KERNEL_DATA, %eax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	lidt idt_pointer
	mov $1, %ebx
	lock xaddl %ebx, READY
	mov %ebx, %esp
	shl $12, %esp
	add $0x180000, %esp
	PAGING
	jmp ap
"""

COUNTING = (
    COMMON
    + """
	.set ROUNDS, 2000
start:
	PAGING
1:	pause
	cmpl $OTHERS, READY
	jne 1b
	call work
2:	pause
	cmpl $CPUS * ROUNDS, PLAIN
	jne 2b
	cmpl $CPUS * ROUNDS, COUNTER
	jne 3f
	FINISH 0
3:	FINISH 1
work:
	mov $ROUNDS, %ecx
4:	lock incl COUNTER
5:	lock btsl $0, LOCK
	jnc 7f
6:	pause
	testl $1, LOCK
	jnz 6b
	jmp 5b
7:	mov PLAIN, %eax
	inc %eax
	mov %eax, PLAIN
	movl $0, LOCK
	dec %ecx
	jnz 4b
	ret
ap:
	call work
8:	hlt
	jmp 8b
"""
)


Smp = Callable[..., Machine]


@pytest.fixture
def smp(tiny_guest: MakeGuest) -> Smp:
    """A machine whose other CPUs are told to start at the trampoline."""

    def make(source: str, cpus: int, **about: Any) -> Machine:
        numbers = f"\t.set CPUS, {cpus}\n\t.set OTHERS, {cpus - 1}\n"
        guest = tiny_guest(numbers + source)
        about.setdefault("max_instructions", 20_000_000)
        machine = Machine(MachineDescription(guest.data, memory=4 << 20, cpus=cpus, **about))
        machine.memory.load(TRAMPOLINE, trampoline(guest))
        for processor in machine.processors[1:]:
            processor.startup(PAGE)
        return machine

    return make


def passed(machine: Machine) -> Run:
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED, run
    return run


@pytest.mark.parametrize("cpus", [2, 3, 4, 8])
def test_cpus_start_in_real_mode_and_share_memory(smp: Smp, cpus: int) -> None:
    machine = smp(COUNTING, cpus)
    run = passed(machine)
    assert machine.memory.read(TRAMPOLINE + MARKER, 4) == MARK.to_bytes(4, "little")
    assert len(run.vcpus) == cpus
    assert min(share.instructions for share in run.vcpus) > 2000 * 8
    assert sum(share.instructions for share in run.vcpus) == run.instructions
    assert sum(share.ledger.total for share in run.vcpus) == run.ledger.total
    assert sum(share.virtual_ns for share in run.vcpus) == run.virtual_ns


def test_counts_repeat_with_several_cpus(smp: Smp) -> None:
    assert passed(smp(COUNTING, 4)) == passed(smp(COUNTING, 4))


def test_the_shadow_is_right_at_every_exit_of_every_cpu(smp: Smp) -> None:
    assert passed(smp(COUNTING, 3, check_shadow=True)).shadow_entries_checked > 0


@pytest.mark.parametrize("cpus", [0, 9, -1])
def test_the_number_of_cpus_is_checked(tiny_guest: MakeGuest, cpus: int) -> None:
    guest = tiny_guest("start: FINISH 0")
    with pytest.raises(BadDescription, match=f"{cpus} virtual CPUs: expected 1 to 8"):
        Machine(MachineDescription(guest.data, memory=4 << 20, cpus=cpus))


CODE_OF_ANOTHER = (
    COMMON
    + """
	.set ROUNDS, 100
	# The first CPU rewrites a function's result in another page again and again; the
	# second one calls it each time it is told to.
start:
	PAGING
	movl $0x000000b8, 0x210000		# mov $N, %eax
	movl $0x0000c300, 0x210004		# ret
	xor %esi, %esi
1:	inc %esi
	mov %esi, 0x210001
	mov %esi, SHARED
2:	pause
	cmp %esi, SHARED + 4
	jne 2b
	cmp $ROUNDS, %esi
	jne 1b
	cmpl $0, SHARED + 8
	jne 3f
	FINISH 0
3:	FINISH 1
ap:
	xor %edi, %edi
4:	pause
	cmp %edi, SHARED
	je 4b
	mov SHARED, %edi
	mov $0x210000, %eax
	call *%eax
	cmp %eax, %edi
	je 5f
	incl SHARED + 8
5:	mov %edi, SHARED + 4
	jmp 4b
"""
)


def test_a_cpu_executes_what_another_one_has_written(smp: Smp) -> None:
    run = passed(smp(CODE_OF_ANOTHER, 2))
    assert run.ledger.engine_events["code_write"] >= 1


PATCHING = """
start:	PAGING
	call patched
	cmp $1, %eax
	jne bad
	movl $0, beside			# the first store to the page hits no code
	movl $2, patched + 1
	call patched
	cmp $2, %eax
	jne bad
	FINISH 0
bad:	FINISH 1
	.balign 4096
patched:
	mov $1, %eax
	ret
beside:	.long 0
	.balign 4096
"""


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_cpu_executes_what_it_has_written_itself(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine], cpus: int
) -> None:
    """At once: as long as the others wait to be started, no turn ends."""
    run = make_machine(tiny_guest(PATCHING), cpus=cpus).run()
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome


def test_page_tables_are_protected_from_every_cpu(smp: Smp) -> None:
    machine = smp(
        COMMON
        + """
start:
	PAGING
	mov TABLE, %eax
	movl $1, SHARED
1:	pause
	cmpl $2, SHARED
	jne 1b
	# The other CPU has made this page lead elsewhere, and told us.
	invlpg 0x350000
	cmpl $0x77, 0x350000
	jne 2f
	FINISH 0
2:	FINISH 1
ap:
	mov 0x350000, %eax
3:	pause
	cmpl $1, SHARED
	jne 3b
	movl $0x77, 0x351000
	movl $0x351000 + OPEN, TABLE + 0x350 * 4
	movl $2, SHARED
4:	hlt
	jmp 4b
""",
        2,
    )
    run = passed(machine)
    assert run.vcpus[1].ledger.by_reason[Reason.PTE_WRITE].count == 1
    assert Event.PTE_WRITE not in machine.vm.vcpus[0].counters.totals()


STATE = {"cr0": 0x80010011, "cr3": 0x10C000, "ebx": 0x1234, "esp": 0x190000, "edi": 7}
SEGMENTS = {"cs": 8, "ss": 16, "ds": 16, "es": 16}


def begin_in_state(smp: Smp, **about: int) -> Run:
    """The second CPU begins in a state, and the guest ends with EBX, EDI and CR3 in order."""
    machine = smp(
        """
start:
	PAGING
1:	pause
	cmpl $1, 0x200000
	jne 1b
	FINISH 0
ap_start:
	cmp $0x1234, %ebx
	jne 2f
	cmp $7, %edi
	jne 2f
	mov %cr3, %eax
	cmp $DIRECTORY, %eax
	jne 2f
	push %ebx
	pop %eax
	movl $1, 0x200000
2:	hlt
	jmp 2b
""",
        2,
        max_instructions=1_000_000,
    )
    jump = machine.memory.read(TRAMPOLINE, 64).index(b"\x66\xea")
    entry = int.from_bytes(machine.memory.read(TRAMPOLINE + jump + 2, 4), "little")
    known = STATE | SEGMENTS | {"eip": entry, "gdtr_base": 0x108000, "gdtr_limit": 47} | about
    machine.processors[1].start_in(ApState(**known))
    return machine.run()


def test_a_cpu_begins_in_the_state_it_was_given(smp: Smp) -> None:
    assert begin_in_state(smp).outcome.kind is OutcomeKind.PASSED


@pytest.mark.parametrize(
    "wrong", [{"cs": 16}, {"ss": 8}, {"ds": 0x28}, {"gdtr_base": 0x700000}, {"ldtr": 8}]
)
def test_a_state_with_segments_that_cannot_be_loaded_shuts_down(
    smp: Smp, wrong: dict[str, int]
) -> None:
    run = begin_in_state(smp, **wrong)
    assert run.outcome.kind is OutcomeKind.TRIPLE_FAULT, run
    assert "CPU 1 cannot start" in run.outcome.detail


def test_the_guest_itself_starts_the_others_by_init_and_startup(tiny_guest: MakeGuest) -> None:
    source = "\t.set CPUS, 3\n\t.set OTHERS, 2\n" + COUNTING.replace(
        "\nstart:\n",
        """
start:
	mov $0x106000, %esi
	mov $0x8000, %edi
	mov $0x104, %ecx
	cld
	rep movsb
	movl $0x1ff, 0xfee000f0
	movl $0xc4500, 0xfee00300		# INIT to all but this one
	movl $0xc4608, 0xfee00300		# start-up at page 8
	movl $0xc4608, 0xfee00300
""",
        1,
    )
    page = trampoline(tiny_guest(source))
    guest = tiny_guest(source, pieces={0x106000: page})
    about = MachineDescription(guest.data, memory=4 << 20, cpus=3, max_instructions=3_000_000)
    machine = Machine(about)
    run = passed(machine)
    assert all(share.instructions > 2000 * 8 for share in run.vcpus)
    assert run.ledger.by_reason[Reason.MMIO].count == 4


@pytest.mark.parametrize("entries", ["0x20", "0"])
def test_a_store_to_tables_by_a_cpu_that_does_not_page(smp: Smp, entries: str) -> None:
    """It may think of entries of 64 bits: the tables are those of the CPU that uses them."""
    source = f"""
	.set PAGE, 0x200000
	.set ENTRY, TABLE + 0x800
ap_start:
	mov $KERNEL_DATA, %eax
	mov %ax, %ds
	mov ${entries}, %eax
	mov %eax, %cr4
1:	pause
	cmpl $1, 0x202000
	jne 1b
	movl $0x201000 | OPEN, ENTRY
	movl $2, 0x202000
2:	hlt
	jmp 2b
start:
	movl $0xaaaa, 0x200000
	movl $0xbbbb, 0x201000
	PAGING
	cmpl $0xaaaa, PAGE
	jne wrong
	movl $1, 0x202000
3:	pause
	cmpl $2, 0x202000
	jne 3b
	invlpg PAGE
	cmpl $0xbbbb, PAGE
	jne wrong
	FINISH 0
wrong:	FINISH 1
"""
    passed(smp(source, 2))
