"""What is known of numbers holds for every number it stands for."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.filters.isa import AluOp, JumpOp
from vmm.filters.scalar import (
    U64,
    UNKNOWN,
    Scalar,
    compute,
    constant,
    narrow,
    refine,
    to_signed,
    unsigned,
)

NUMBERS = st.one_of(
    st.integers(0, 20),
    st.integers(0, (1 << 32) - 1),
    st.integers(U64 - 20, U64),
    st.integers((1 << 31) - 4, (1 << 31) + 4),
    st.integers((1 << 63) - 4, (1 << 63) + 4),
    st.integers(0, U64),
)
COMPUTED = [op for op in AluOp if op not in {AluOp.NEG, AluOp.MOV, AluOp.END}]
COMPARED: dict[JumpOp, Callable[[int, int], bool]] = {
    JumpOp.JEQ: operator.eq,
    JumpOp.JNE: operator.ne,
    JumpOp.JGT: operator.gt,
    JumpOp.JGE: operator.ge,
    JumpOp.JLT: operator.lt,
    JumpOp.JLE: operator.le,
    JumpOp.JSET: lambda a, b: bool(a & b),
    JumpOp.JSGT: operator.gt,
    JumpOp.JSGE: operator.ge,
    JumpOp.JSLT: operator.lt,
    JumpOp.JSLE: operator.le,
}
SIGNED = {JumpOp.JSGT, JumpOp.JSGE, JumpOp.JSLT, JumpOp.JSLE}


@st.composite
def known(draw: st.DrawFn) -> tuple[Scalar, int]:
    """Knowledge, and a number that it holds for: built up from the number."""
    number = draw(NUMBERS)
    found = constant(number)
    if draw(st.booleans()):
        found = unsigned(min(number, draw(NUMBERS)), max(number, draw(NUMBERS)))
        if draw(st.booleans()):
            # Learn some bits as well: those of a number ANDed with a mask.
            mask = draw(NUMBERS)
            found = compute(AluOp.AND, found, constant(mask), 64)
            number &= mask
    return found, number


@given(known())
def test_knowledge_holds_what_it_was_built_from(pair: tuple[Scalar, int]) -> None:
    assert pair[0].holds(pair[1])


@given(known(), known(), st.sampled_from(COMPUTED), st.sampled_from([32, 64]), st.booleans())
def test_results_are_among_the_expected(
    a: tuple[Scalar, int], b: tuple[Scalar, int], op: AluOp, bits: int, signed: bool
) -> None:
    exact = compute(op, constant(a[1]), constant(b[1]), bits, signed=signed)
    assert exact.is_constant
    assert compute(op, a[0], b[0], bits, signed=signed).holds(exact.low)


@given(known(), known(), st.sampled_from(list(COMPARED)), st.sampled_from([32, 64]))
def test_what_a_comparison_teaches_is_true(
    a: tuple[Scalar, int], b: tuple[Scalar, int], op: JumpOp, bits: int
) -> None:
    top = (1 << bits) - 1
    x, y = a[1] & top, b[1] & top
    if op in SIGNED:
        x, y = to_signed(x, bits), to_signed(y, bits)
    learnt = refine(op, a[0], b[0], bits, taken=COMPARED[op](x, y))
    assert learnt is not None
    assert learnt[0].holds(a[1])
    assert learnt[1].holds(b[1])


@given(known(), known())
def test_including_means_holding_more(a: tuple[Scalar, int], b: tuple[Scalar, int]) -> None:
    assert UNKNOWN.includes(a[0])
    if a[0].includes(b[0]):
        assert a[0].holds(b[1])


@pytest.mark.parametrize(
    ("found", "low", "high"),
    [
        (compute(AluOp.AND, UNKNOWN, constant(7), 64), 0, 7),
        (compute(AluOp.RSH, UNKNOWN, constant(60), 64), 0, 15),
        (compute(AluOp.MOD, UNKNOWN, constant(10), 64), 0, 9),
        (compute(AluOp.ADD, unsigned(2, 5), unsigned(10, 20), 64), 12, 25),
        (compute(AluOp.SUB, unsigned(10, 20), unsigned(2, 5), 64), 5, 18),
        (compute(AluOp.MUL, unsigned(2, 5), unsigned(10, 20), 64), 20, 100),
        (compute(AluOp.DIV, unsigned(0, 100), constant(10), 64), 0, 10),
        (narrow(UNKNOWN, 8), 0, 255),
    ],
)
def test_bounds_are_kept(found: Scalar, low: int, high: int) -> None:
    assert (found.low, found.high) == (low, high)


@pytest.mark.parametrize(
    ("op", "taken", "low", "high"),
    [
        (JumpOp.JGT, True, 101, U64),
        (JumpOp.JGT, False, 0, 100),
        (JumpOp.JLT, True, 0, 99),
        (JumpOp.JEQ, True, 100, 100),
        (JumpOp.JSGE, True, 100, (1 << 63) - 1),
    ],
)
def test_comparisons_narrow(op: JumpOp, taken: bool, low: int, high: int) -> None:
    learnt = refine(op, UNKNOWN, constant(100), 64, taken=taken)
    assert learnt is not None
    assert (learnt[0].low, learnt[0].high) == (low, high)


def test_what_cannot_be_is_known() -> None:
    assert refine(JumpOp.JEQ, constant(1), constant(2), 64, taken=True) is None
    assert refine(JumpOp.JGT, unsigned(0, 5), constant(5), 64, taken=True) is None
    assert refine(JumpOp.JSET, constant(8), constant(7), 64, taken=True) is None
    assert refine(JumpOp.JSGT, constant(U64), constant(0), 64, taken=True) is None
