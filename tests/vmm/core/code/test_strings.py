"""Repeated string instructions: what is done in one go is what an iteration each does."""

import pytest

from vmm.core.outcome import OutcomeKind

A, B, CODE = 0x200000, 0x210000, 0x220000
PAGE = 4096


def program(operation: str, *, to: int, origin: int, count: int, direction: str = "cld") -> str:
    return f"""
start:	PAGING
	mov ${A}, %edi
	mov ${4 * PAGE}, %ecx
fill:	mov %ecx, %eax
	imul $2654435, %eax, %eax
	shr $7, %eax
	movb %al, (%edi)
	inc %edi
	dec %ecx
	jnz fill
	{direction}
	mov $0x1a2b3c4d, %eax
	mov ${origin}, %esi
	mov ${to}, %edi
	mov ${count}, %ecx
	{operation}
	mov %esi, {B}
	mov %edi, {B + 4}
	mov %ecx, {B + 8}
	FINISH 0
"""


def start_bytes() -> bytearray:
    return bytearray(((n * 2654435) & 0xFFFFFFFF) >> 7 & 0xFF for n in range(4 * PAGE, 0, -1))


def expected(operation: str, to: int, origin: int, count: int, step: int) -> tuple[bytes, int, int]:
    """Iteration by iteration, as the manual has it."""
    memory = start_bytes()
    width = 4 if operation.endswith("l") else 1
    for _ in range(count):
        if "movs" in operation:
            data = bytes(memory[origin - A : origin - A + width])
            origin += step * width
        else:
            data = (0x1A2B3C4D).to_bytes(4, "little")[:width]
        memory[to - A : to - A + width] = data
        to += step * width
    return bytes(memory), origin, to


CASES = [
    (operation, A + to, A + origin, count)
    for operation in ("rep movsl", "rep movsb", "rep stosl", "rep stosb")
    for to, origin, count in (
        (0, 2 * PAGE, 1024),
        (8, 2 * PAGE + 4, 1500),
        (PAGE - 6, 2 * PAGE + 1, 1100),
        (PAGE + 3, PAGE, 900),
        (PAGE + 4, PAGE, 900),
        (PAGE + 1, PAGE, 700),
        (PAGE, PAGE + 2, 700),
        (PAGE - 3, 3 * PAGE, 2),
        (16, 32, 1),
        (16, 32, 0),
    )
]


@pytest.mark.parametrize(("operation", "to", "origin", "count"), CASES)
@pytest.mark.parametrize("direction", ["cld", "std"])
def test_memory_registers_and_count(
    tiny_guest, make_machine, operation: str, to: int, origin: int, count: int, direction: str
) -> None:
    step = 1 if direction == "cld" else -1
    if step < 0:
        count = min(count, 200)
        to, origin = max(to, A + 1024), max(origin, A + 1024)
    source = program(operation, to=to, origin=origin, count=count, direction=direction)
    machine = make_machine(tiny_guest(source))
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED
    memory, origin_end, to_end = expected(operation, to, origin, count, step)
    assert machine.ram[A : A + 4 * PAGE] == memory
    ends = [machine.memory.read32(B + 4 * i) for i in range(3)]
    assert ends == [origin_end if "movs" in operation else origin, to_end, 0]
    # One instruction an iteration, however many are done in one go.
    few = make_machine(
        tiny_guest(program(operation, to=to, origin=origin, count=1, direction=direction))
    ).run()
    assert run.instructions == few.instructions + count - 1


@pytest.mark.parametrize("limit", [200, 1000, 1023])
def test_a_limit_falls_on_its_iteration(tiny_guest, make_machine, limit: int) -> None:
    guest = tiny_guest(program("rep stosl", to=A, origin=0, count=1024))
    whole = make_machine(guest).run()
    before = whole.instructions - 1024 - 5
    machine = make_machine(guest, max_instructions=before + limit)
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.LIMIT
    done = 1024 - machine.vcpu.cpu.reg(1)
    assert before + limit - 1 - run.instructions in {0, 1}
    assert abs(done - limit) <= 12


def test_a_read_only_page_faults_on_its_first_byte(run_guest) -> None:
    run_guest(
        f"""
start:	PAGING
	andl $~2, TABLE + {(A >> 12) * 4 + 4}
	mov %cr3, %eax
	mov %eax, %cr3
	cld
	mov ${A + PAGE - 64}, %edi
	mov $64, %ecx
	rep stosl
	FINISH 1
fault:	mov %cr2, %eax
	cmp ${A + PAGE}, %eax
	jne wrong
	cmp $48, %ecx
	jne wrong
	cmp ${A + PAGE}, %edi
	jne wrong
	FINISH 0
wrong:	FINISH 2
""",
        handlers={14: "fault"},
    )


@pytest.mark.parametrize("copy", ["rep movsb", "rep movsl"])
def test_code_that_is_copied_over_runs_as_copied(run_guest, copy: str) -> None:
    """Twice, so that the engine has translated what is replaced; through another mapping, too."""
    count = 256 if copy.endswith("l") else 1024
    run_guest(
        f"""
start:	PAGING
	movl ${CODE} | OPEN, TABLE + {(A >> 12) * 4}
	mov %cr3, %eax
	mov %eax, %cr3
	cld
	xor %ebx, %ebx
again:	mov $first, %esi
	mov ${CODE}, %edi
	mov ${count}, %ecx
	{copy}
	mov ${CODE}, %eax
	call *%eax
	cmp $1, %eax
	jne wrong
	mov $second, %esi
	mov ${A}, %edi
	mov ${count}, %ecx
	{copy}
	mov ${CODE}, %eax
	call *%eax
	cmp $2, %eax
	jne wrong
	inc %ebx
	cmp $3, %ebx
	jne again
	FINISH 0
wrong:	FINISH 1
	.balign 4
first:	mov $1, %eax
	ret
	.fill 1024, 1, 0x90
	.balign 4
second:	mov $2, %eax
	ret
	.fill 1024, 1, 0x90
"""
    )


@pytest.mark.parametrize("paging", [True, False])
def test_code_that_no_longer_repeats_anything(tiny_guest, make_machine, paging: bool) -> None:
    """A block at the same address, as long as the string instruction that was there before."""
    run = make_machine(
        tiny_guest(
            f"""
start:	{"PAGING" if paging else ""}
	cld
	mov ${A}, %edi
	mov $0x11111111, %eax
	mov $100, %ecx
	call there
	mov $0x22222222, %eax
	movw $0x00eb, there		# jmp .+2
	mov ${A}, %edi
	mov $100, %ecx
	call there
	cmp $100, %ecx
	jne wrong
	cmp ${A}, %edi
	jne wrong
	cmpl $0x11111111, {A}
	jne wrong
	FINISH 0
wrong:	FINISH 1
	.balign 64
there:	rep stosl
	ret
"""
        )
    ).run()
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
