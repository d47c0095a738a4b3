"""The store emulator against the processor itself: Unicorn executing the same bytes natively.

Each case loads all registers and flags, stores to a page that the shadow traces (or, natively,
to plain memory), and saves registers and flags. Afterwards all of memory must be equal.
"""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from unicorn import Uc, UcError
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

from vmm.core.event import Reason
from vmm.core.outcome import OutcomeKind

DIRECTORY = 0x10C000
TRACED = 0x200000
NEXT = 0x201000
SOURCE = 0x2FE000
TOUCHED = 0x2FF000
CODE = 0x300000
RESULTS = 0x380000
RECORD = 64
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)
ARITHMETIC = 0x8D5
CARRY, ZERO = 1, 0x40

GUEST = f"""
start:
	movl $0x200000 | OPEN, DIRECTORY + 4
	movl $0x201000 | OPEN, DIRECTORY + 8
	movl $0x2ff000 | OPEN, 0x200ffc
	movl $0x2ff000 | OPEN, 0x201ffc
	PAGING
	mov ${CODE}, %eax
	call *%eax
	FINISH 0
"""


@dataclass(frozen=True)
class Form:
    """An opcode; `group` fixes the ModRM's register field."""

    name: str
    opcode: bytes
    size: int
    group: int | None = None
    immediate: int = 0
    kept_flags: int = ARITHMETIC
    """The flags that the manual defines after it."""

    def __str__(self) -> str:
        return self.name


LOGIC = ARITHMETIC & ~0x10


def supported() -> Iterator[Form]:
    yield Form("mov8", b"\x88", 1)
    yield Form("mov16", b"\x66\x89", 2)
    yield Form("mov32", b"\x89", 4)
    yield Form("movi8", b"\xc6", 1, 0, 1)
    yield Form("movi16", b"\x66\xc7", 2, 0, 2)
    yield Form("movi32", b"\xc7", 4, 0, 4)
    yield Form("xchg8", b"\x86", 1)
    yield Form("xchg16", b"\x66\x87", 2)
    yield Form("xchg32", b"\x87", 4)
    yield Form("lock_xchg32", b"\xf0\x87", 4)
    for number, name in enumerate(("add", "or", "adc", "sbb", "and", "sub", "xor")):
        if name in {"adc", "sbb"}:
            continue
        flags = LOGIC if name in {"or", "and", "xor"} else ARITHMETIC
        yield Form(f"{name}8", bytes([8 * number]), 1, kept_flags=flags)
        yield Form(f"{name}16", bytes([0x66, 8 * number + 1]), 2, kept_flags=flags)
        yield Form(f"{name}32", bytes([8 * number + 1]), 4, kept_flags=flags)
        yield Form(f"lock_{name}32", bytes([0xF0, 8 * number + 1]), 4, kept_flags=flags)
        yield Form(f"{name}i8", b"\x80", 1, number, 1, flags)
        yield Form(f"{name}i16", b"\x66\x81", 2, number, 2, flags)
        yield Form(f"{name}i32", b"\x81", 4, number, 4, flags)
        yield Form(f"{name}s16", b"\x66\x83", 2, number, 1, flags)
        yield Form(f"{name}s32", b"\x83", 4, number, 1, flags)
    for number, name in ((5, "bts"), (6, "btr"), (7, "btc")):
        yield Form(f"{name}i16", b"\x66\x0f\xba", 2, number, 1, CARRY)
        yield Form(f"{name}i32", b"\x0f\xba", 4, number, 1, CARRY)
        yield Form(f"lock_{name}i32", b"\xf0\x0f\xba", 4, number, 1, CARRY)
        yield Form(f"{name}32", bytes([0x0F, 0xAB + 8 * (number - 5)]), 4, None, 0, CARRY)
    yield Form("cmpxchg8", b"\x0f\xb0", 1)
    yield Form("cmpxchg16", b"\x66\x0f\xb1", 2)
    yield Form("cmpxchg32", b"\x0f\xb1", 4)
    yield Form("lock_cmpxchg32", b"\xf0\x0f\xb1", 4)
    yield Form("xadd8", b"\x0f\xc0", 1)
    yield Form("xadd16", b"\x66\x0f\xc1", 2)
    yield Form("xadd32", b"\x0f\xc1", 4)
    yield Form("cmpxchg8b", b"\x0f\xc7", 8, 1)
    yield Form("lock_cmpxchg8b", b"\xf0\x0f\xc7", 8, 1)


def unsupported() -> Iterator[Form]:
    """What the emulator leaves to the processor, after the page's shadow is given up."""
    yield Form("adc32", b"\x11", 4)
    yield Form("sbbi32", b"\x81", 4, 3, 4)
    yield Form("not32", b"\xf7", 4, 2)
    yield Form("neg32", b"\xf7", 4, 3)
    yield Form("inc32", b"\xff", 4, 0)
    yield Form("dec16", b"\x66\xff", 2, 1)
    yield Form("pop", b"\x8f", 4, 0)
    yield Form("setc", b"\x0f\x92", 1, 0)
    yield Form("shl", b"\xc1", 4, 4, 1, 0)
    yield Form("shld", b"\x0f\xa4", 4, None, 1, 0)
    yield Form("movnti", b"\x0f\xc3", 4)
    yield Form("fst64", b"\xdd", 8, 2)


SUPPORTED = list(supported())
UNSUPPORTED = list(unsupported())


class Program:
    """The bytes of many cases, and what to compare of each one's flags."""

    def __init__(self, seed: int, target: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - tests repeat
        self.target = target
        self.code = bytearray()
        self.cases: list[tuple[str, int]] = []

    def load(self, registers: list[int], flags: int) -> None:
        self.code += b"\x68" + struct.pack("<I", flags) + b"\x9d"
        for number, value in enumerate(registers):
            if number != ESP:
                self.code += bytes([0xB8 + number]) + struct.pack("<I", value & 0xFFFFFFFF)

    def save(self, name: str, kept_flags: int) -> None:
        at = RESULTS + RECORD * len(self.cases)
        for number in range(8):
            self.code += bytes([0x89, 0x05 | number << 3]) + struct.pack("<I", at + 4 * number)
        self.code += b"\x9c\x8f\x05" + struct.pack("<I", at + 32)
        self.cases.append((name, kept_flags))

    def touch(self) -> None:
        """Use an entry of the traced tables, which makes them traced (again)."""
        self.code += b"\xa1" + struct.pack("<I", 0x7FF000)
        self.code += b"\xa1" + struct.pack("<I", 0xBFF000)

    def values(self) -> list[int]:
        """Register contents that meet each other and the memory's now and then."""
        pool = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
        return [
            self.random.choice(pool) if self.random.random() < 0.5 else self.random.getrandbits(32)
            for _ in range(8)
        ]

    def operand(self, registers: list[int], reg: int, address: int) -> bytes:
        """ModRM, SIB and displacement for `address`; sets a base or index to fit."""
        pick = self.random
        shape = pick.choice(("absolute", "base", "base8", "base32", "sib", "index"))
        base = pick.choice((EBX, EBP, ESI, EDI))
        if shape == "absolute":
            return bytes([reg << 3 | 5]) + struct.pack("<I", address)
        if shape == "base" and base != EBP:
            registers[base] = address
            return bytes([reg << 3 | base])
        if shape == "base8":
            offset = pick.randrange(-128, 128)
            registers[base] = address - offset
            return bytes([0x40 | reg << 3 | base]) + struct.pack("<b", offset)
        if shape == "sib":
            scale, index = pick.randrange(4), pick.choice((EBX, ESI))
            base = pick.choice((EBP, EDI))
            registers[index] = pick.randrange(64)
            offset = pick.randrange(-64, 64)
            registers[base] = address - offset - (registers[index] << scale)
            sib = scale << 6 | index << 3 | base
            return bytes([0x44 | reg << 3, sib]) + struct.pack("<b", offset)
        if shape == "index":
            index = pick.choice((EBX, ESI, EDI))
            registers[index] = pick.randrange(64)
            offset = (address - (registers[index] << 2)) & 0xFFFFFFFF
            return bytes([reg << 3 | 4, 0x80 | index << 3 | 5]) + struct.pack("<I", offset)
        offset = pick.getrandbits(31)
        registers[base] = address - offset
        return bytes([0x80 | reg << 3 | base]) + struct.pack("<I", offset)

    def add(self, form: Form, address: int) -> None:
        self.touch()
        registers = self.values()
        # The second operand is one that addresses nothing: EAX to EDX, or their high halves.
        reg = self.random.choice((EAX, ECX, EDX) + ((4, 5, 6) if form.size == 1 else ()))
        if form.group is not None:
            reg = form.group
        elif form.opcode[-1] in {0xAB, 0xB3, 0xBB} and form.opcode[-2] == 0x0F:
            # A bit offset beyond the operand moves the access.
            registers[reg & 3] = self.random.randrange(-64, 64)
        operand = self.operand(registers, reg, address)
        immediate = self.random.randbytes(form.immediate)
        self.load(registers, 2 | self.random.getrandbits(12) & ARITHMETIC)
        if form.name == "pop":
            self.code += b"\x68" + self.random.randbytes(4)
        if self.random.random() < 0.2 and form.opcode[0] not in {0xF0, 0x66}:
            self.code.append(0x3E)
        self.code += form.opcode + operand + immediate
        self.save(form.name, form.kept_flags)

    def add_string(self, opcode: bytes, count: int, *, backwards: bool, address: int) -> None:
        self.touch()
        registers = self.values()
        registers[EDI] = address
        registers[ESI] = SOURCE + 0x400 + self.random.randrange(0x400)
        registers[ECX] = count
        self.load(registers, 2 | (0x400 if backwards else 0))
        self.code += opcode
        self.save(opcode.hex(), ARITHMETIC)
        self.code += b"\xfc"

    def spot(self, margin: int = 64) -> int:
        return self.target + self.random.randrange(margin, 0xFE0 - margin)


def memories(
    program: Program, tiny_guest: Callable[..., object], make_machine: Callable[..., object]
) -> tuple[bytes, bytes, object]:
    """Memory after the program under the monitor, and natively; and the run."""
    program.code += b"\xc3"
    assert len(program.code) < RESULTS - CODE
    machine = make_machine(tiny_guest(GUEST))
    machine.memory.load(CODE, bytes(program.code))
    noise = random.Random(1).randbytes(4096)  # noqa: S311 - tests repeat
    machine.memory.load(SOURCE, noise)
    machine.memory.load(TRACED, noise)
    machine.memory.load(NEXT, noise[::-1])
    uc = Uc(const.UC_ARCH_X86, const.UC_MODE_32)
    uc.mem_map(0, 16 << 20)
    uc.mem_write(0, bytes(machine.ram))
    # What the guest does before it calls the cases.
    uc.mem_write(DIRECTORY + 4, struct.pack("<2I", TRACED | 0x67, NEXT | 0x67))
    for table in (TRACED, NEXT):
        uc.mem_write(table + 0xFFC, struct.pack("<I", TOUCHED | 0x67))
    uc.reg_write(x86.UC_X86_REG_ESP, 0x10FFFC)
    uc.mem_write(0x10FFFC, struct.pack("<I", 0x1000))
    try:
        uc.emu_start(CODE, 0x1000)
    except UcError as error:
        pytest.fail(f"natively: {error} at {uc.reg_read(x86.UC_X86_REG_EIP):#x}")
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    return bytes(machine.ram), bytes(uc.mem_read(0, 4 << 20)), run


def compare(program: Program, ours: bytes, native: bytes) -> None:
    for number, (name, kept) in enumerate(program.cases):
        at = RESULTS + RECORD * number
        mine = struct.unpack_from("<9I", ours, at)
        theirs = struct.unpack_from("<9I", native, at)
        assert mine[:ESP] == theirs[:ESP], f"registers after case {number}, {name}"
        assert mine[ESP + 1 : 8] == theirs[ESP + 1 : 8], f"registers after case {number}, {name}"
        assert (mine[8] ^ theirs[8]) & kept == 0, (
            f"flags after case {number}, {name}: {mine[8]:#x}, natively {theirs[8]:#x}"
        )
    for page in (TRACED, NEXT, DIRECTORY):
        assert ours[page : page + 4096] == native[page : page + 4096]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("target", [TRACED, DIRECTORY], ids=["table", "live directory"])
def test_supported_forms_do_what_the_processor_does(
    tiny_guest, make_machine, seed: int, target: int
) -> None:
    program = Program(seed, target)
    for form in SUPPORTED * 6:
        # The first entries of the live directory map the guest itself.
        program.add(form, program.spot(0x100))
    ours, native, run = memories(program, tiny_guest, make_machine)
    compare(program, ours, native)
    assert run.ledger.by_reason[Reason.PTE_WRITE].count == len(program.cases)
    # Emulated, so that nothing was unshadowed and filled anew.
    assert run.ledger.by_reason[Reason.SHADOW_FILL].count < 40


def test_a_matching_cmpxchg_stores(run_guest) -> None:
    run = run_guest("""
start:	movl $0x200000 | OPEN, DIRECTORY + 4
	movl $0x200000 | OPEN, 0x200000
	PAGING
	mov 0x400000, %eax
	mov $0x200000 | OPEN, %eax
	mov $0x300000 | OPEN, %ecx
	cmpxchg %ecx, 0x200000
	jne 1f
	mov $0x300000 | OPEN, %eax
	xor %edx, %edx
	mov $0x12345000, %ebx
	mov $0x76543000, %ecx
	cmpxchg8b 0x200000
	jne 1f
	cmpl $0x12345000, 0x200000
	jne 1f
	cmpl $0x76543000, 0x200004
	jne 1f
	FINISH 0
1:	FINISH 1
""")
    assert run.ledger.by_reason[Reason.PTE_WRITE].count == 2


@pytest.mark.parametrize("seed", range(3))
def test_unknown_forms_are_left_to_the_processor(tiny_guest, make_machine, seed: int) -> None:
    program = Program(100 + seed, TRACED)
    for form in UNSUPPORTED * 10:
        program.add(form, program.spot())
    ours, native, run = memories(program, tiny_guest, make_machine)
    compare(program, ours, native)
    assert run.ledger.by_reason[Reason.PTE_WRITE].count == len(program.cases)
    assert run.ledger.by_reason[Reason.SHADOW_FILL].count > len(program.cases)


STRINGS = [b"\xaa", b"\xab", b"\x66\xab", b"\xa4", b"\xa5", b"\x66\xa5"]


@pytest.mark.parametrize("target", [TRACED, DIRECTORY], ids=["table", "live directory"])
def test_string_stores(tiny_guest, make_machine, target: int) -> None:
    program = Program(7, target)
    for opcode in STRINGS * 4:
        for count in (0, 1, 5):
            for backwards in (False, True):
                at = target + program.random.randrange(0x400, 0xC00)
                program.add_string(b"\xf3" + opcode, count, backwards=backwards, address=at)
                program.add_string(opcode, count, backwards=backwards, address=at)
    ours, native, _ = memories(program, tiny_guest, make_machine)
    compare(program, ours, native)


@pytest.mark.parametrize("seed", range(4))
def test_stores_across_the_edge_of_a_page_table(tiny_guest, make_machine, seed: int) -> None:
    """The fault may be reported on the second page; the store starts on the first."""
    program = Program(200 + seed, TRACED)
    edges = [TRACED, NEXT, NEXT + 4096]
    for form in SUPPORTED * 2:
        if form.size > 1 and form.opcode[-1] not in {0xAB, 0xB3, 0xBB}:
            edge = program.random.choice(edges)
            program.add(form, edge - program.random.randrange(1, form.size))
    for opcode in (b"\xab", b"\xa5", b"\xf3\xab"):
        for edge in edges:
            program.add_string(opcode, 1, backwards=False, address=edge - 2)
    ours, native, run = memories(program, tiny_guest, make_machine)
    compare(program, ours, native)
    assert run.ledger.by_reason[Reason.PTE_WRITE].count >= len(program.cases)


@pytest.mark.parametrize("offset", [1, 2, 3, 5])
def test_a_misaligned_store_reaches_both_entries(run_guest, offset: int) -> None:
    """Present bits cleared by a store that straddles two entries: both pages are gone."""
    run = run_guest(
        f"""
start:	movl $0x200000 | OPEN, DIRECTORY + 4
	movl $0x300000 | OPEN, 0x200000
	movl $0x301000 | OPEN, 0x200004
	movl $0x302000 | OPEN, 0x200008
	PAGING
	mov 0x400000, %eax
	mov 0x401000, %eax
	mov 0x402000, %eax
	movl $0, 0x200000 + {offset}
	mov $0x400000, %eax
	invlpg (%eax)
	invlpg 0x1000(%eax)
	invlpg 0x2000(%eax)
	mov $0x400000 + ({offset} & 4) * 0x400 + 0x1000, %ebx
	mov (%ebx), %eax
	FINISH 1
fault:	mov %cr2, %eax
	cmp %ebx, %eax
	jne 1f
	FINISH 0
1:	FINISH 2
""",
        handlers={14: "fault"},
    )
    assert run.ledger.by_reason[Reason.PTE_WRITE].count == 1


def test_sixteen_bit_code_is_left_to_the_processor(run_guest) -> None:
    """In a 16-bit code segment 89 07 is MOV [BX], AX."""
    run_guest("""
start:	movl $0x200000 | OPEN, DIRECTORY + 4
	movl $0x200000 | OPEN, 0x200ffc
	movl $0x0000ffff, GDT + 0x18
	movl $0x00009b30, GDT + 0x1c
	movl $0x0000ffff, GDT + 0x20
	movl $0x00cf9320, GDT + 0x24
	movl $0xea660789, 0x300000		# mov %ax, (%bx); ljmpl
	movl $back, 0x300004
	movw $KERNEL_CODE, 0x300008
	PAGING
	mov 0x7ff000, %eax
	movl $0xaaaaaaaa, 0x200020
	mov 0x7ff000, %eax
	mov $0x20, %eax
	mov %ax, %ds
	mov $0x12345678, %eax
	mov $0x20, %ebx
	mov $0x300800, %edi
	.byte 0xea
	.long 0
	.word 0x18
back:	mov $KERNEL_DATA, %eax
	mov %ax, %ds
	cmpl $0xaaaa5678, 0x200020
	jne 1f
	FINISH 0
1:	FINISH 1
""")
