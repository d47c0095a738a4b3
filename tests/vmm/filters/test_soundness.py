"""No program that the verifier accepts can be made to fail: a search at random."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmi.address import Port
from vmm.core.ports.filtervm import FilterFault, FilterMachine
from vmm.filters.isa import AluOp, Instruction, InstructionClass, JumpOp
from vmm.filters.program import FilterProgram, PortRange
from vmm.filters.verifier import MOST_STEPS, RejectedFilter, verify

_REGISTERS = st.integers(0, 10)
_NUMBERS = st.one_of(
    st.integers(-4, 40), st.integers(-(1 << 31), (1 << 31) - 1), st.sampled_from([255, 4096])
)
_OFFSETS = st.one_of(st.integers(-24, 32), st.integers(-520, 40))
_PLAIN_ALU = [op for op in AluOp if op not in {AluOp.NEG, AluOp.END, AluOp.MOV}]
_BRANCHES = [op for op in JumpOp if op not in {JumpOp.JA, JumpOp.CALL, JumpOp.EXIT}]


@st.composite
def _instructions(draw: st.DrawFn) -> list[Instruction | None]:
    """One well-formed instruction, jumps short and forward or back."""
    dst, src, imm, offset = draw(_REGISTERS), draw(_REGISTERS), draw(_NUMBERS), draw(_OFFSETS)
    kind = draw(st.integers(0, 9))
    alu = draw(st.sampled_from([InstructionClass.ALU, InstructionClass.ALU64]))
    if kind <= 2:
        op = draw(st.sampled_from(_PLAIN_ALU))
        signed = draw(st.integers(0, 1)) if op in {AluOp.DIV, AluOp.MOD} else 0
        if draw(st.booleans()):
            return [Instruction(op << 4 | alu | 8, dst, src, signed)]
        return [Instruction(op << 4 | alu, dst, 0, signed, imm)]
    if kind == 3:
        if draw(st.booleans()):
            return [Instruction(AluOp.MOV << 4 | alu | 8, dst, src)]
        return [Instruction(AluOp.MOV << 4 | alu, dst, imm=imm)]
    if kind == 4:
        jump = draw(st.sampled_from([InstructionClass.JMP, InstructionClass.JMP32]))
        op, by = draw(st.sampled_from(_BRANCHES)), draw(st.integers(-3, 4))
        if draw(st.booleans()):
            return [Instruction(op << 4 | jump | 8, dst, src, by)]
        return [Instruction(op << 4 | jump, dst, 0, by, imm)]
    size = draw(st.integers(0, 3)) << 3
    if kind <= 6:
        mode = draw(st.sampled_from([3, 3, 3, 4])) if size != 0x18 else 3
        return [Instruction(mode << 5 | size | InstructionClass.LDX, dst, src, offset)]
    if kind == 7:
        return [Instruction(3 << 5 | size | InstructionClass.STX, dst, src, offset)]
    if kind == 8:
        return [Instruction(3 << 5 | size | InstructionClass.ST, dst, 0, offset, imm)]
    return [Instruction(0x18, dst, 6, 0, draw(st.integers(0, 31)) << 32), None]


@st.composite
def programs(draw: st.DrawFn) -> tuple[Instruction | None, ...]:
    """Code that begins with addresses and numbers in some registers and ends with an answer.

    Most of it is refused; enough is not.
    """
    code: list[Instruction | None] = [
        Instruction(0x18, 2, 6, 0, 0),
        None,
        Instruction(0xB7, 0, imm=0),
        Instruction(0xB7, 3, imm=draw(_NUMBERS)),
        Instruction(0x61, 4, 1, 0),
        Instruction(0x79, 5, 1, 8),
    ]
    for _ in range(draw(st.integers(1, 10))):
        code += draw(_instructions())
    code += [Instruction(0xB7, 0, imm=draw(st.integers(0, 1))), Instruction(0x95)]
    return tuple(code)


@settings(max_examples=400)
@given(
    programs(),
    st.integers(0, 0xFFFF),
    st.integers(0, (1 << 64) - 1),
    st.binary(min_size=32, max_size=32),
)
def test_no_accepted_program_can_be_made_to_fail(
    code: tuple[Instruction | None, ...], port: int, now: int, state: bytes
) -> None:
    """The interpreter checks again what was promised; nothing that was accepted may trip it."""
    found = FilterProgram("random", (PortRange(Port(0x40), Port(0x40)),), code, state)
    try:
        longest = verify(found)
    except RejectedFilter:
        return
    assert longest <= MOST_STEPS
    running = FilterMachine(found.rows(), found.state)
    for at in (now, 0, port):
        try:
            running.run(port, 1, at)
        except FilterFault as fault:
            pytest.fail(f"{fault}: accepted {code}")
