"""The filter machine computes what RFC 9669 says, and never leaves its memory."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.core.ports.filters import PortFilters
from vmm.core.ports.filtervm import FilterFault, FilterMachine
from vmm.filters.isa import AluOp, Instruction, InstructionClass, JumpOp, decode, encode
from vmm.filters.scalar import compute, constant, refine

U64 = (1 << 64) - 1
NUMBERS = st.one_of(
    st.integers(0, 70),
    st.integers(U64 - 70, U64),
    st.integers((1 << 31) - 3, (1 << 31) + 3),
    st.integers((1 << 63) - 3, (1 << 63) + 3),
    st.integers(0, U64),
)
COMPUTED = [op for op in AluOp if op not in {AluOp.NEG, AluOp.MOV, AluOp.END}]
COMPARED = [op for op in JumpOp if op not in {JumpOp.JA, JumpOp.CALL, JumpOp.EXIT}]
EXIT = Instruction(0x95)


def execute(*code: Instruction | None, state: bytes = bytes(32)) -> int:
    program = decode(encode(code))
    rows = [
        (0, 0, 0, 0, 0) if one is None else (one.opcode, one.dst, one.src, one.offset, one.imm)
        for one in program
    ]
    return int(FilterMachine(rows, state).execute()) & U64


def load(register: int, number: int) -> tuple[Instruction, None]:
    return Instruction(0x18, register, imm=number), None


@given(NUMBERS, NUMBERS, st.sampled_from(COMPUTED), st.booleans(), st.booleans())
def test_arithmetic(a: int, b: int, op: AluOp, wide: bool, signed: bool) -> None:
    signed = signed and op in {AluOp.DIV, AluOp.MOD}
    kind = InstructionClass.ALU64 if wide else InstructionClass.ALU
    one = Instruction(op << 4 | kind | 8, 0, 2, int(signed))
    expected = compute(op, constant(a), constant(b), 64 if wide else 32, signed=signed)
    assert execute(*load(0, a), *load(2, b), one, EXIT) == expected.low


@given(NUMBERS, NUMBERS, st.sampled_from(COMPARED), st.booleans())
def test_comparisons(a: int, b: int, op: JumpOp, wide: bool) -> None:
    kind = InstructionClass.JMP if wide else InstructionClass.JMP32
    jump = Instruction(op << 4 | kind | 8, 2, 3, 1)
    taken = refine(op, constant(a), constant(b), 64 if wide else 32, taken=True) is not None
    no, yes = Instruction(0xB7, 0), Instruction(0xB7, 0, imm=1)
    assert execute(*load(2, a), *load(3, b), yes, jump, no, EXIT) == int(taken)


@given(NUMBERS, st.sampled_from([8, 16, 32]))
def test_sign_extension(number: int, bits: int) -> None:
    low = number & (1 << bits) - 1
    expected = low - ((low >> (bits - 1)) << bits)
    moved = Instruction(0xBF, 0, 2, bits)
    assert execute(*load(2, number), moved, EXIT) == expected & U64
    if bits < 32:
        narrow = Instruction(0xBC, 0, 2, bits)
        assert execute(*load(2, number), narrow, EXIT) == expected & 0xFFFFFFFF


@given(NUMBERS, st.sampled_from([16, 32, 64]))
def test_byte_order(number: int, bits: int) -> None:
    low = number & (1 << bits) - 1
    other = int.from_bytes(low.to_bytes(bits // 8, "little"), "big")
    for opcode, expected in ((0xD4, low), (0xDC, other), (0xD7, other)):
        assert execute(*load(0, number), Instruction(opcode, 0, imm=bits), EXIT) == expected


@given(NUMBERS, NUMBERS, st.sampled_from([4, 8]), st.booleans())
def test_atomics(a: int, b: int, width: int, fetch: bool) -> None:
    top = (1 << 8 * width) - 1
    size = 0 if width == 4 else 0x18
    state = (a & top).to_bytes(8, "little")
    for imm, result in ((0, a + b), (0x40, a | b), (0x50, a & b), (0xA0, a ^ b), (0xE1, b)):
        kind = imm | int(fetch)
        one = Instruction(0xC3 | size, 2, 3, 0, kind)
        code = (*load(2, 0), one)
        place = (Instruction(0x18, 2, 6), None)
        back = Instruction(0x61 | size, 0, 2)
        assert execute(*place, *load(3, b), one, back, EXIT, state=state) == result & top
        if kind & 1:
            got = execute(*place, *load(3, b), one, Instruction(0xBF, 0, 3), EXIT, state=state)
            assert got == a & top
        assert code
    for expected in (a, b):
        one = Instruction(0xC3 | size, 2, 3, 0, 0xF1)
        place = (Instruction(0x18, 2, 6), None)
        back = Instruction(0x61 | size, 0, 2)
        swapped = (a & top) == (expected & top)
        got = execute(*place, *load(0, expected), *load(3, b), one, back, EXIT, state=state)
        assert got == (b if swapped else a) & top


@pytest.mark.parametrize(
    "code",
    [
        (Instruction(0xB7, 2, imm=0), Instruction(0x79, 0, 2), EXIT),
        (Instruction(0x18, 2, imm=U64 - 3), None, Instruction(0x79, 0, 2), EXIT),
        (Instruction(0x18, 2, 6, imm=25 << 32), None, Instruction(0x79, 0, 2), EXIT),
        (Instruction(0x18, 2, 6, imm=U64 & ~0xFFFFFFFF), None, Instruction(0x73, 2, 2), EXIT),
        (Instruction(0x05, offset=-1), EXIT),
        (Instruction(0x05, offset=100), EXIT),
        (Instruction(0x05, offset=-100), EXIT),
        (Instruction(0x85, src=1, imm=-1), EXIT),
        (Instruction(0xB7, 0),),
    ],
    ids=["null", "top", "behind", "far", "for ever", "behind code", "before", "recursion", "end"],
)
def test_unverified_programs_are_stopped(code: tuple[Instruction | None, ...]) -> None:
    with pytest.raises(FilterFault):
        execute(*code)


def test_the_context() -> None:
    # value = port + size + low half of the time; answered.
    code = (
        Instruction(0x61, 2, 1, 0),
        Instruction(0x61, 3, 1, 4),
        Instruction(0x0F, 2, 3),
        Instruction(0x79, 3, 1, 8),
        Instruction(0x0F, 2, 3),
        Instruction(0x63, 1, 2, 16),
        Instruction(0xB7, 0, imm=1),
        EXIT,
    )
    made = FilterMachine([(o.opcode, o.dst, o.src, o.offset, o.imm) for o in code], b"")
    filters = PortFilters()
    filters.attach(made, [0x40, 0x42])
    assert filters.answers(0x40, 2, (7 << 32) + 5)
    assert filters.value == 0x40 + 2 + 5
    assert not filters.answers(0x41, 2, 0)
    assert filters.counts(0) == (1, 0)
    with pytest.raises(ValueError, match="port 0x42 has a filter already"):
        filters.attach(made, [0x41, 0x42])


def test_state_is_shared_both_ways() -> None:
    code = (Instruction(0x18, 2, 6), None, Instruction(0x79, 0, 2), Instruction(0x7A, 2, imm=9))
    rows = [
        (0, 0, 0, 0, 0) if o is None else (o.opcode, o.dst, o.src, o.offset, o.imm)
        for o in (*code, EXIT)
    ]
    made = FilterMachine(rows, bytes(8))
    struct.pack_into("<Q", made.state, 0, 77)
    assert made.execute() == 77
    assert bytes(made.state) == struct.pack("<Q", 9)
