"""A guest's view of its local APIC: through memory, MSRs, CPUID and interrupts."""

import pytest

from vmm.core.event import Event, Reason
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine

APIC = """
	.set APIC, 0x200000			# where PAGING plus MAP_APIC put the registers
	.set ID, 0x20
	.set VERSION, 0x30
	.set TPR, 0x80
	.set EOI, 0xb0
	.set SVR, 0xf0
	.set ISR, 0x100
	.set IRR, 0x200
	.set ESR, 0x280
	.set ICR, 0x300
	.set TIMER, 0x320
	.set LINT0, 0x350
	.set INITIAL, 0x380
	.set CURRENT, 0x390
	.set DIVIDE, 0x3e0

	.macro MAP_APIC
	PAGING
	movl $0xfee00000 | OPEN, TABLE + 0x800
	.endm

	.macro STORE register, value
	movl $\\value, APIC + \\register
	.endm

	.macro EXPECT register, value, code
	cmpl $\\value, APIC + \\register
	je 9f
	FINISH \\code
9:
	.endm
"""


@pytest.fixture
def apic_guest(make_machine, tiny_guest):
    """A machine with a local APIC and a guest made from a source."""

    def make(source: str, *, handlers=None, **about) -> Machine:
        guest = tiny_guest(APIC + source, handlers=handlers)
        about.setdefault("apic", True)
        return make_machine(guest, **about)

    return make


def mmio(machine: Machine) -> dict[tuple[int, int], int]:
    """{(address, instruction): accesses}."""
    return {
        (qualifier, eip): count
        for event, qualifier, eip, count in machine.vcpu.counters.places()[0]
        if event is Event.MMIO
    }


FORMS = """
start:	MAP_APIC
	mov $7, %ecx
	mov APIC + VERSION, %eax
	cmp $0x50014, %eax
	jne bad
	movl $0x1ff, APIC + SVR
	mov $0x35, %edx
	mov %edx, APIC + TPR - 7(,%ecx,1)
	xchg %edx, APIC + TPR
	cmp $0x35, %edx
	jne bad
	orl $0x02, APIC + TPR
	andl $0x7e, APIC + TPR
	cmpl $0x36, APIC + TPR
	jne bad
	testl $0x49, APIC + TPR
	jnz bad
	movzbl APIC + VERSION + 2, %ebx
	cmp $5, %ebx
	jne bad
	movsbl APIC + SVR, %ebx
	cmp $-1, %ebx
	jne bad
	movw APIC + VERSION, %bx
	cmp $0x0014, %bx
	jne bad
	.byte 0xa1
	.long APIC + SVR			# mov moffs, %eax
	cmp $0x1ff, %eax
	jne bad
	test %ecx, APIC + TPR
	jz bad
	cmp %eax, APIC + SVR
	jne bad
	cmp APIC + SVR, %eax
	jne bad
	movl $0x40, APIC + TPR
	pushl APIC + TPR			# a form that only the engine knows
	pop %eax
	cmp $0x40, %eax
	jne bad
	FINISH 0
bad:	FINISH 1
"""


def test_every_form_of_access(apic_guest) -> None:
    machine = apic_guest(FORMS)
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED, run
    # One exit an instruction, loads and stores of read-modify-write together, and light.
    row = run.ledger.by_reason[Reason.MMIO]
    assert (row.light, row.heavy) == (17, 0)
    assert all(count == 1 for count in mmio(machine).values())


def test_accesses_are_counted_where_they_are(apic_guest, tiny_guest) -> None:
    source = f"{APIC}\nstart:\tMAP_APIC\n\tnop\nhere:\tmov APIC + VERSION, %eax\n\tFINISH 0"
    machine = apic_guest(source.removeprefix(APIC))
    assert machine.run().outcome.ok
    assert mmio(machine) == {(0xFEE00030, tiny_guest(source).labels["here"]): 1}


@pytest.mark.parametrize(("apic", "bit"), [(True, 0x200), (False, 0)])
def test_cpuid_and_registers_say_the_same(apic_guest, *, apic: bool, bit: int) -> None:
    machine = apic_guest(
        f"""
start:	MAP_APIC
	mov $1, %eax
	cpuid
	and $0x200, %edx
	cmp ${bit}, %edx
	jne bad
	mov $0x1b, %ecx
	rdmsr
	cmp $0xfee00900, %eax
	jne bad
	mov APIC + VERSION, %eax
	FINISH 0
bad:	FINISH 1
""",
        apic=apic,
    )
    run = machine.run()
    assert run.outcome.ok, run
    assert run.registers["ebx"] == 0
    # Where nobody answers, that is the bus.
    row = run.ledger.by_reason[Reason.MMIO]
    assert (row.light, row.heavy) == ((1, 0) if apic else (0, 1))


def test_it_can_be_moved_and_switched_off(apic_guest) -> None:
    run = apic_guest(
        """
start:	MAP_APIC
	movl $0xfec80000 | OPEN, TABLE + 0x804
	STORE TPR, 0x50
	mov $0x1b, %ecx
	mov $0xfec80800, %eax
	xor %edx, %edx
	wrmsr
	cmpl $0x50, APIC + 0x1000 + TPR
	jne bad
	cmpl $-1, APIC + TPR
	jne bad
	mov $0xfec80000, %eax
	wrmsr
	cmpl $-1, APIC + 0x1000 + TPR
	jne bad
	mov $1, %eax
	cpuid
	test $0x200, %edx
	jnz bad
	mov $0x1b, %ecx
	mov $0xfee00c00, %eax			# a reserved bit
	xor %edx, %edx
	wrmsr
bad:	FINISH 1
fault:	FINISH 0
""",
        handlers={13: "fault"},
    ).run()
    assert run.outcome.ok, run


def test_over_ram_it_is_unsupported(apic_guest) -> None:
    run = apic_guest(
        "start: mov $0x1b, %ecx\n mov $0x300800, %eax\n xor %edx, %edx\n wrmsr\n FINISH 0"
    ).run()
    assert run.outcome.kind is OutcomeKind.UNSUPPORTED
    assert "local APIC over RAM at 0x300900" in run.outcome.detail


def test_a_read_only_page_protects_it(apic_guest) -> None:
    """A load and store in one faults like a store."""
    run = apic_guest(
        """
start:	PAGING
	movl $0xfee00000 | 0x61, TABLE + 0x800
	mov %cr0, %eax
	or $0x10000, %eax
	mov %eax, %cr0
	mov APIC + VERSION, %ebx
	xchg %eax, APIC + TPR
	FINISH 1
fault:	testl $2, (%esp)
	jz 1f
	mov %cr2, %eax
	cmp $APIC + TPR, %eax
	jne 1f
	FINISH 0
1:	FINISH 2
""",
        handlers={14: "fault"},
    ).run()
    assert run.outcome.ok, run


TIMER = """
start:	MAP_APIC
	STORE SVR, 0x1ff
	STORE DIVIDE, 0xb
	STORE TIMER, {entry:#x}
	STORE INITIAL, 20000
	sti
1:	cmpl $5, FREE + 0x1000
	{wait}
	jb 1b
	cli
	FINISH 0
irq:	incl FREE + 0x1000
	STORE EOI, 0
	{again}
	iretl
"""


@pytest.mark.parametrize("wait", ["hlt\n cmpl $5, FREE + 0x1000", "nop"])
@pytest.mark.parametrize(("entry", "again"), [(0x20041, ""), (0x41, "movl $20000, APIC + INITIAL")])
def test_the_timer_interrupts(apic_guest, wait: str, entry: int, again: str) -> None:
    machine = apic_guest(TIMER.format(entry=entry, wait=wait, again=again), handlers={0x41: "irq"})
    run = machine.run()
    assert run.outcome.ok, run
    assert 100_000 <= run.virtual_ns < 110_000
    exits = {reason: row.count for reason, row in run.ledger.by_reason.items()}
    if wait == "nop":
        assert exits[Reason.INTERRUPT] == 5
    else:
        assert exits[Reason.HLT] == 5
    assert run.ledger.heavy == 1, "the store that ends the machine"


def test_a_nested_interrupt_waits_for_eoi(apic_guest) -> None:
    """To oneself, by shorthand: a lower class waits until the higher one has ended."""
    run = apic_guest(
        """
start:	MAP_APIC
	STORE SVR, 0x1ff
	xor %ebx, %ebx
	sti
	STORE ICR, 0x40051
	nop
	cmp $2, %ebx
	jne bad
	cmpl $0, APIC + ESR
	jne bad
	FINISH 0
high:	STORE ICR, 0x40041
	sti
	nop
	nop
	test %ebx, %ebx
	jnz bad
	cmpl $0x20000, APIC + ISR + 0x20	# vector 0x51
	jne bad
	cmpl $2, APIC + IRR + 0x20		# vector 0x41
	jne bad
	inc %ebx
	STORE EOI, 0
	nop
	iretl
low:	inc %ebx
	STORE EOI, 0
	iretl
bad:	FINISH 1
""",
        handlers={0x51: "high", 0x41: "low"},
    ).run()
    assert run.outcome.ok, run


PIT = """
start:	MAP_APIC
	{first}
	mov $0x11, %al				# the 8259s, vectors from 0x20 on
	outb %al, $0x20
	mov $0x20, %al
	outb %al, $0x21
	mov $4, %al
	outb %al, $0x21
	mov $1, %al
	outb %al, $0x21
	mov $0xfe, %al
	outb %al, $0x21
	mov $0x34, %al
	outb %al, $0x43
	mov $100, %al
	outb %al, $0x40
	mov $0, %al
	outb %al, $0x40
	sti
1:	cmpl $3, FREE + 0x1000
	jb 1b
	cli
	FINISH 0
irq:	incl FREE + 0x1000
	mov $0x20, %al
	outb %al, $0x20
	iretl
"""


@pytest.mark.parametrize(
    ("first", "passes"),
    [
        ("", True),
        ("STORE LINT0, 0x10700", False),
        # Switched off by IA32_APIC_BASE, LINT0 is INTR again.
        ("STORE LINT0, 0x10700\n mov $0x1b, %ecx\n xor %eax, %eax\n xor %edx, %edx\n wrmsr", True),
    ],
)
def test_the_8259_reaches_the_processor_through_lint0(
    apic_guest, first: str, *, passes: bool
) -> None:
    machine = apic_guest(PIT.format(first=first), handlers={0x20: "irq"})
    assert machine.run().outcome.ok == passes


@pytest.mark.parametrize("apic", [False, True])
def test_runs_repeat(apic_guest, *, apic: bool) -> None:
    source = PIT.format(first="")
    first, second = (apic_guest(source, handlers={0x20: "irq"}, apic=apic).run() for _ in range(2))
    assert first.outcome.ok
    assert first == second


def test_what_is_hidden_costs_and_changes_nothing(apic_guest) -> None:
    source = PIT.format(first="")
    hidden, shown = (
        apic_guest(source, handlers={0x20: "irq"}, apic=apic).run() for apic in (False, True)
    )
    assert hidden.ledger == shown.ledger
    assert hidden.instructions == shown.instructions
