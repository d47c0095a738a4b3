"""Exceptions and interrupts through the guest's IDT, after the SDM vol. 3, chapter 6."""

import struct
from collections.abc import Callable, Mapping

import pytest

from vmm.core.outcome import OutcomeKind
from vmm.machine import Run

IDT, GDT, TSS, DIRECTORY, TABLE = 0x109000, 0x108000, 0x10B000, 0x10C000, 0x10D000
STUBS = 0x10A000
FRAME = 0x3F0000
RunGuest = Callable[..., Run]

# Keeps the frame on the stack, ESP, CR2 and CS in memory, then ends well.
REPORT = """
report:	mov %esp, %ss:0x3f0000
	mov $KERNEL_DATA, %eax
	mov %ax, %ds
	mov %ax, %es
	mov %esp, %esi
	mov $0x3f0010, %edi
	mov $8, %ecx
	cld
	rep movsl
	mov %cr2, %eax
	mov %eax, 0x3f0004
	mov %cs, %eax
	mov %eax, 0x3f0008
	mov %ss, %eax
	mov %eax, 0x3f000c
	FINISH 0
"""


def gate(handler: int, selector: int = 0x08, kind: int = 0x8E) -> bytes:
    return struct.pack("<HHBBH", handler & 0xFFFF, selector, 0, kind, handler >> 16)


class Frame:
    """What `report` found."""

    def __init__(self, ram: bytes, labels: Mapping[str, int]) -> None:
        self.labels = labels
        self.esp, self.cr2, self.cs, self.ss = struct.unpack_from("<4I", ram, FRAME)
        self.words = struct.unpack_from("<8I", ram, FRAME + 16)


@pytest.fixture
def reported(tiny_guest, make_machine) -> Callable[..., Frame]:
    def run(source: str, vector: int, *, pieces: dict[int, bytes] | None = None) -> Frame:
        guest = tiny_guest(source + REPORT, handlers={vector: "report"}, pieces=pieces)
        machine = make_machine(guest)
        outcome = machine.run().outcome
        assert outcome.kind is OutcomeKind.PASSED, outcome
        return Frame(machine.ram, guest.labels)

    return run


def test_int_from_ring_3_switches_to_the_stack_of_the_task_segment(reported) -> None:
    frame = reported(
        """
start:	PAGING
	USER_MODE user
user:	int $0x80
after:	jmp after
""",
        0x80,
    )
    assert frame.words[:5] == (frame.labels["after"], 0x1B, 2, 0x111000, 0x23)
    assert frame.esp == 0x110000 - 20
    assert (frame.cs, frame.ss & 0xFFFF) == (0x08, 0x10)


def test_an_interrupt_in_ring_0_stays_on_its_stack(reported) -> None:
    frame = reported("start: PAGING\n mov $0x10f000, %esp\n stc\nat: int $0x40\nafter: hlt\n", 0x40)
    assert frame.words[:3] == (frame.labels["after"], 0x08, 0x87)
    assert frame.esp == 0x10F000 - 12


@pytest.mark.parametrize(
    ("instruction", "vector"),
    [("int3", 3), ("stc\n mov $0x7fffffff, %eax\n add $1, %eax\nat: into", 4)],
)
def test_traps_report_the_instruction_after(reported, instruction: str, vector: int) -> None:
    frame = reported(f"start: PAGING\n {instruction}\nafter: hlt\n", vector)
    assert frame.words[0] == frame.labels["after"]


def test_into_without_overflow_goes_on(run_guest: RunGuest) -> None:
    run_guest("start: PAGING\n xor %eax, %eax\n into\n FINISH 0\n")


@pytest.mark.parametrize(
    ("instruction", "vector"),
    [
        ("ud2", 6),
        ("xor %ecx, %ecx\n mov $1, %eax\nat: div %ecx", 0),
        (".byte 0x0f, 0x01, 0xc1", 6),
        (".byte 0x0f, 0x01, 0xd9", 6),
        (".byte 0x0f, 0xff", 6),
        ("mov %cr0, %eax\n or $8, %eax\n mov %eax, %cr0\nat: fninit", 7),
    ],
    ids=["ud2", "divide", "vmcall", "vmmcall", "ud0", "no fpu"],
)
def test_faults_without_an_error_code_report_the_instruction(
    reported, instruction: str, vector: int
) -> None:
    source = instruction if "at:" in instruction else f"at: {instruction}"
    frame = reported(f"start: PAGING\n {source}\n hlt\n", vector)
    assert frame.words[:2] == (frame.labels["at"], 0x08)


@pytest.mark.parametrize(
    ("instruction", "vector", "error"),
    [
        ("mov $0x48, %eax\nat: mov %ax, %ds", 13, 0x48),
        ("mov $0x1b, %eax\nat: mov %ax, %ss", 13, 0x18),
        ("mov $0x4f, %eax\nat: mov %ax, %es", 13, 0x4C),
        ("mov $0x48, %eax\nat: ltr %ax", 13, 0x48),
        ("at: mov 0x300000, %eax", 14, 0),
        ("at: mov %eax, 0x300000", 14, 2),
        ("at: mov %eax, 0x301000", 14, 3),
        ("at: mov %eax, 0x400000", 14, 2),
    ],
)
def test_error_codes_in_ring_0(reported, instruction: str, vector: int, error: int) -> None:
    pieces = {TABLE + 4 * 0x300: struct.pack("<2I", 0, 0x301065)}
    frame = reported(f"start: PAGING\n {instruction}\n hlt\n", vector, pieces=pieces)
    assert frame.words[:3] == (error, frame.labels["at"], 0x08)


@pytest.mark.parametrize(
    ("instruction", "error", "address"),
    [
        ("mov 0x300000, %eax", 4, 0x300000),
        ("mov %eax, 0x300ff0", 6, 0x300FF0),
        ("mov %eax, 0x301004", 7, 0x301004),
        ("mov 0x302008, %eax", 5, 0x302008),
        ("mov %eax, 0x302008", 7, 0x302008),
        ("incl 0x301004", 7, 0x301004),
        ("jmp *%ebx", 4, 0x300123),
        ("mov %eax, 0x301ffe", 7, 0x301FFE),
    ],
)
def test_page_faults_from_ring_3(reported, instruction: str, error: int, address: int) -> None:
    pieces = {TABLE + 4 * 0x300: struct.pack("<3I", 0, 0x301065, 0x302063)}
    frame = reported(
        f"start: PAGING\n mov $0x300123, %ebx\n USER_MODE user\nuser: {instruction}\n",
        14,
        pieces=pieces,
    )
    at = 0x300123 if "jmp" in instruction else frame.labels["user"]
    assert frame.words[:3] == (error, at, 0x1B)
    assert frame.cr2 == address
    assert frame.words[4:6] == (0x111000, 0x23)


def test_a_page_fault_leaves_the_stack_of_ring_3_alone(reported) -> None:
    """Only the new stack is written: ring 3's may be anything."""
    frame = reported(
        "start: PAGING\n USER_MODE user\nuser: mov $0x300000, %esp\nat: push %eax\n",
        14,
        pieces={TABLE + 4 * 0x2FF: struct.pack("<I", 0)},
    )
    assert frame.words[:2] == (6, frame.labels["at"])
    assert (frame.cr2, frame.words[4]) == (0x2FFFFC, 0x300000)


@pytest.mark.parametrize(("kind", "expected"), [(0x8E, 0x0), (0x8F, 0x200)], ids=["intr", "trap"])
def test_an_interrupt_gate_clears_if_a_trap_gate_does_not(
    run_guest: RunGuest, kind: int, expected: int
) -> None:
    run_guest(
        f"""
start:	PAGING
	lea handler, %eax
	and $0xffff, %eax
	or $0x80000, %eax
	mov %eax, IDT + 0x200
	movl $0x100000 | {kind << 8}, IDT + 0x204
	pushl $0x4346				# NT, IF and some arithmetic flags
	popfl
	int $0x40
	FINISH 1
handler:
	pushfl
	pop %eax
	and $0x4300, %eax			# NT and TF are always cleared
	cmp ${expected}, %eax
	jne 1f
	testl $0x4000, 8(%esp)
	jz 1f
	FINISH 0
1:	FINISH 2
"""
    )


IN_RING_3 = "start: PAGING\n USER_MODE user\nuser: int $0x40\nafter: jmp after\n"
IN_RING_0 = "start: PAGING\nuser: int $0x40\nafter: jmp after\n"


@pytest.mark.parametrize(
    ("source", "entry", "vector", "error"),
    [
        (IN_RING_3, gate(STUBS, kind=0x8E), 13, 0x202),
        (IN_RING_3, gate(STUBS, kind=0xAE), 13, 0x202),
        (IN_RING_3, gate(STUBS, kind=0x6E), 11, 0x202),
        (IN_RING_3, gate(STUBS, kind=0x0E), 13, 0x202),
        (IN_RING_0, gate(STUBS, kind=0x0E), 11, 0x202),
        (IN_RING_0, bytes(8), 13, 0x202),
        (IN_RING_0, gate(STUBS, kind=0x82), 13, 0x202),
        (IN_RING_0, gate(STUBS, kind=0x8C), 13, 0x202),
        (IN_RING_0, gate(STUBS, selector=0), 13, 0),
        (IN_RING_0, gate(STUBS, selector=0x10), 13, 0x10),
        (IN_RING_0, gate(STUBS, selector=0x28), 13, 0x28),
        (IN_RING_0, gate(STUBS, selector=0x1B), 13, 0x18),
        (IN_RING_0, gate(STUBS, selector=0x50), 13, 0x50),
        (IN_RING_0, gate(STUBS, selector=0x0C), 13, 0x0C),
    ],
    ids=[
        "closed to ring 3",
        "open to ring 1",
        "not present",
        "closed before not present",
        "not present in ring 0",
        "empty",
        "LDT type",
        "call gate",
        "null selector",
        "data segment",
        "task segment",
        "outer ring",
        "beyond the GDT",
        "no LDT",
    ],
)
def test_bad_gates(reported, source: str, entry: bytes, vector: int, error: int) -> None:
    frame = reported(source, vector, pieces={IDT + 8 * 0x40: entry})
    # Where a software interrupt faults, EIP is at the INT.
    assert frame.words[:2] == (error, frame.labels["user"])


def test_a_code_segment_that_is_not_present(reported) -> None:
    frame = reported(
        IN_RING_0,
        11,
        pieces={
            IDT + 8 * 0x40: gate(STUBS, selector=0x18),
            GDT + 0x18: struct.pack("<Q", 0x00CF1B000000FFFF),
        },
    )
    assert frame.words[0] == 0x18


def test_a_conforming_handler_runs_in_ring_3(tiny_guest, make_machine) -> None:
    source = """
start:	PAGING
	USER_MODE user
user:	int $0x40
over:	mov %cs, %eax
	mov %eax, 0x3f0000
	mov %esp, 0x3f0004
	mov $0x30, %eax
	int $0x41
done:	FINISH 0
"""
    source = source.replace("start:", "start: movw $0x37, gdt_pointer\n lgdt gdt_pointer\n")
    labels = tiny_guest(source).labels
    pieces = {
        IDT + 8 * 0x40: gate(labels["over"], selector=0x30, kind=0xEE),
        IDT + 8 * 0x41: gate(labels["done"], kind=0xEE),
        GDT + 0x30: struct.pack("<Q", 0x00CF9F000000FFFF),
    }
    guest = tiny_guest(source, pieces=pieces)
    machine = make_machine(guest)
    assert machine.run().outcome.ok
    cs, esp = struct.unpack_from("<2I", machine.ram, FRAME)
    assert cs == 0x33
    assert esp == 0x111000 - 12


@pytest.mark.parametrize(
    ("stack_selector", "descriptor", "vector", "error"),
    [
        (0, None, 10, 0),
        (0x13, None, 10, 0x10),
        (0x08, None, 10, 0x08),
        (0x23, None, 10, 0x20),
        (0x50, None, 10, 0x50),
        (0x10, 0x00CF13000000FFFF, 12, 0x10),
        (0x10, 0x00CF91000000FFFF, 10, 0x10),
    ],
    ids=["null", "RPL 3", "code", "ring 3 data", "beyond the GDT", "not present", "read-only"],
)
def test_a_bad_stack_in_the_task_segment(
    tiny_guest, make_machine, stack_selector: int, descriptor: int | None, vector: int, error: int
) -> None:
    """The fault's handler is in ring 3 here, since no other could be entered."""
    high = 0x00CF9300 if descriptor is None else descriptor >> 32
    source = f"""
start:	PAGING
	movl ${high}, GDT + 0x14
	USER_MODE user
user:	int $0x80
report:	pop 0x3f0000
	pop 0x3f0004
	FINISH 0
"""
    labels = tiny_guest(source).labels
    pieces = {
        TSS + 8: struct.pack("<I", stack_selector),
        IDT + 8 * 0x80: gate(STUBS, kind=0xEE),
        IDT + 8 * vector: gate(labels["report"], selector=0x1B),
    }
    machine = make_machine(tiny_guest(source, pieces=pieces))
    outcome = machine.run().outcome
    # Ring 3 has no right to the exit port, and #GP finds the same stack.
    assert outcome.kind is OutcomeKind.TRIPLE_FAULT, outcome
    assert struct.unpack_from("<2I", machine.ram, FRAME) == (error, labels["user"])


def test_a_task_segment_without_room_for_the_stack(run_guest: RunGuest) -> None:
    outcome = run_guest(
        "start: movw $0x0007, GDT + 0x28\n mov $0x28, %eax\n movb $0x89, GDT + 0x2d\n ltr %ax\n"
        " PAGING\n USER_MODE user\nuser: int $0x80\n",
        gates={0x80: gate(STUBS, kind=0xEE)},
        passes=False,
    ).outcome
    assert outcome.kind is OutcomeKind.TRIPLE_FAULT


def test_a_page_fault_that_cannot_be_delivered_is_a_double_fault(reported) -> None:
    """A page fault during a page fault's delivery: the new vector is 8 with error 0."""
    frame = reported(
        """
start:	PAGING
	movl $0, IDT + 14 * 8 + 4
at:	mov 0x300000, %eax
""",
        8,
        pieces={TABLE + 4 * 0x300: struct.pack("<I", 0)},
    )
    assert frame.words[:2] == (0, frame.labels["at"])
    assert frame.cr2 == 0x300000


def test_a_double_fault_for_a_stack_that_is_not_there(run_guest: RunGuest) -> None:
    """#PF on the push, #PF again for the double fault's push: a triple fault."""
    run = run_guest(
        "start: PAGING\n mov $0x301000, %esp\n mov 0x300000, %eax\n",
        pieces={TABLE + 4 * 0x300: struct.pack("<I", 0)},
        passes=False,
    )
    assert run.outcome.kind is OutcomeKind.TRIPLE_FAULT
    assert "vector 14 while delivering a double fault" in run.outcome.detail


def test_a_task_stack_that_is_not_there_is_a_page_fault_first(reported) -> None:
    """INT n from ring 3 whose kernel stack is not mapped: #PF, then #DF, both on that stack."""
    source = """
start:	PAGING
	USER_MODE user
user:	int $0x80
"""
    with pytest.raises(AssertionError, match="triple_fault"):
        reported(source, 14, pieces={TSS + 4: struct.pack("<I", 0x500000)})


def test_contributory_faults_become_a_double_fault(reported) -> None:
    """#GP for the missing gate of #GP itself."""
    frame = reported(
        "start: PAGING\nat: int $0x40\n",
        8,
        pieces={IDT + 13 * 8: bytes(8), IDT + 0x40 * 8: bytes(8)},
    )
    assert frame.words[:2] == (0, frame.labels["at"])


def test_a_fault_after_a_benign_one_is_delivered_itself(reported) -> None:
    """#UD whose gate is missing: a plain #GP, with the vector and the external bit."""
    frame = reported("start: PAGING\nat: ud2\n", 13, pieces={IDT + 6 * 8: bytes(8)})
    assert frame.words[:2] == (6 * 8 + 2 + 1, frame.labels["at"])


def test_a_page_fault_reading_the_idt(reported) -> None:
    """The IDT's second page is not mapped: vectors that lie in it fault on it."""
    frame = reported(
        """
start:	mov $IDT, %esi
	mov $0x300c00, %edi
	mov $0x80, %ecx
	rep movsl
	PAGING
	movw $0x7ff, idt_pointer
	movl $0x300c00, idt_pointer + 2
	lidt idt_pointer
	movl $0, TABLE + 0x301 * 4
	invlpg 0x301000
at:	int $0x90
""",
        14,
    )
    assert frame.words[:2] == (0, frame.labels["at"])
    assert frame.cr2 == 0x300C00 + 0x90 * 8


def test_an_idt_that_is_not_aligned(reported) -> None:
    frame = reported(
        """
start:	mov $IDT, %esi
	mov $0x300ffa, %edi
	mov $0x200, %ecx
	rep movsl
	PAGING
	movl $0x300ffa, idt_pointer + 2
	lidt idt_pointer
at:	int $0x80
after:	hlt
""",
        0x80,
    )
    assert frame.words[0] == frame.labels["after"]


def test_an_idt_limit_of_zero(run_guest: RunGuest) -> None:
    run = run_guest("start: PAGING\n movw $0, idt_pointer\n lidt idt_pointer\n ud2\n", passes=False)
    assert run.outcome.kind is OutcomeKind.TRIPLE_FAULT


def test_the_frame_may_land_in_a_page_table(run_guest: RunGuest) -> None:
    """A stack in a traced table: what delivery pushes is followed by the shadow."""
    run_guest(
        """
start:	movl $0x200000 | OPEN, DIRECTORY + 4
	movl $0x300000 | OPEN, 0x200ffc
	movl $0x301000 | OPEN, 0x200ff0
	PAGING
	mov 0x7ff000, %eax
	mov 0x7fc000, %eax
	mov $0x200ffc, %esp
	.balign 2, 0x90
	int $0x40				# EIP goes to 0x200ff0: even, so not present
	FINISH 1
handler:
	invlpg 0x7fc000
	mov $STACK_TOP, %esp
	mov 0x7fc000, %eax
	FINISH 2
fault:	mov %cr2, %eax
	cmp $0x7fc000, %eax
	jne 1f
	FINISH 0
1:	FINISH 3
""",
        handlers={0x40: "handler", 14: "fault"},
    )


def test_events_are_counted_apart(run_guest: RunGuest) -> None:
    run = run_guest(
        """
start:	PAGING
	int $0x40
	ud2
	FINISH 0
interrupt:
	iretl
undefined:
	addl $2, (%esp)
	iretl
""",
        handlers={0x40: "interrupt", 6: "undefined"},
    )
    assert run.ledger.engine_events["software_interrupt"] == 1
    assert run.ledger.engine_events["exception"] == 1


def test_iret_to_ring_3_and_back_many_times(run_guest: RunGuest) -> None:
    run = run_guest(
        """
start:	PAGING
	USER_MODE user
user:	mov $1000, %ebx
1:	int $0x80
	cmp %ebx, %ecx
	jne 2f
	dec %ebx
	jnz 1b
	int $0x81
2:	int $0x82
call:	mov %ebx, %ecx
	iretl
done:	FINISH 0
wrong:	FINISH 1
""",
        handlers={0x80: "call", 0x81: "done", 0x82: "wrong"},
    )
    assert run.ledger.engine_events["software_interrupt"] == 1001
