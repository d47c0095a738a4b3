"""Interrupts by priority, from the request to the end, after the SDM's chapter on the APIC."""

from hypothesis import given
from hypothesis import strategies as st

from localapics import APR, EOI, FIXED, IRR, ISR, PPR, TMR, TPR, make, vectors


@given(st.integers(0, 255), st.sets(st.integers(16, 255)), st.sets(st.integers(16, 255)))
def test_priorities_are_those_of_the_manual(tpr: int, serving: set[int], asking: set[int]) -> None:
    apic, _, _ = make()
    for vector in sorted(serving):
        apic.accept(FIXED, vector, level=False)
        # Nested, each above the last: only the highest of a class gets in before its EOI.
        if apic.pending:
            apic.acknowledge()
    in_service = vectors(apic, ISR)
    for vector in asking:
        apic.accept(FIXED, vector, level=False)
    requests = vectors(apic, IRR)
    apic.write(TPR, tpr)
    isrv, irrv = max(in_service, default=0), max(requests, default=0)
    # SDM, "Processor Priority Register" and "Arbitration Priority Register".
    ppr = tpr if tpr >> 4 >= isrv >> 4 else isrv & 0xF0
    if tpr >> 4 >= irrv >> 4 and tpr >> 4 > isrv >> 4:
        apr = tpr
    else:
        apr = max(tpr >> 4 & isrv >> 4, irrv >> 4) << 4
    assert apic.read(PPR) == ppr
    assert apic.read(APR) == apr
    assert apic.pending == (irrv >> 4 > ppr >> 4)


def test_interrupts_get_in_by_priority_and_end_in_reverse() -> None:
    apic, heard, _ = make()
    for vector in (0x31, 0x51, 0x41, 0x41):
        apic.accept(FIXED, vector, level=False)
    assert vectors(apic, IRR) == {0x31, 0x41, 0x51}
    assert apic.acknowledge() == 0x51
    assert not apic.pending
    apic.accept(FIXED, 0x58, level=False)
    assert not apic.pending, "the same class waits"
    apic.accept(FIXED, 0x61, level=False)
    assert apic.acknowledge() == 0x61
    assert vectors(apic, ISR) == {0x51, 0x61}
    apic.write(EOI, 0)
    assert vectors(apic, ISR) == {0x51}
    apic.write(EOI, 0)
    assert apic.acknowledge() == 0x58
    apic.write(EOI, 0)
    assert apic.acknowledge() == 0x41
    apic.write(EOI, 0)
    assert apic.acknowledge() == 0x31
    apic.write(EOI, 0)
    apic.write(EOI, 0)
    assert vectors(apic, ISR) == vectors(apic, IRR) == set()
    assert heard.ended == []
    assert heard.levels == [True, False] * 5


def test_the_task_priority_holds_interrupts_back() -> None:
    apic, heard, _ = make()
    apic.write(TPR, 0x40)
    apic.accept(FIXED, 0x4F, level=False)
    assert not apic.pending
    apic.write(TPR, 0x3F)
    assert apic.pending
    apic.write(TPR, 0xFF)
    assert not apic.pending
    assert heard.levels == [True, False]


def test_what_is_gone_at_the_acknowledge_is_spurious() -> None:
    apic, _, _ = make()
    apic.accept(FIXED, 0x41, level=False)
    apic.write(TPR, 0xF0)
    assert apic.acknowledge() == 0xFF
    assert vectors(apic, ISR) == set()
    assert vectors(apic, IRR) == {0x41}


def test_the_end_of_a_level_triggered_interrupt_is_told() -> None:
    apic, heard, _ = make()
    apic.accept(FIXED, 0x41, level=True)
    assert vectors(apic, TMR) == {0x41}
    apic.acknowledge()
    apic.write(EOI, 0)
    assert heard.ended == [0x41]
    apic.accept(FIXED, 0x41, level=False)
    assert vectors(apic, TMR) == set()
    apic.acknowledge()
    apic.write(EOI, 0)
    assert heard.ended == [0x41]
