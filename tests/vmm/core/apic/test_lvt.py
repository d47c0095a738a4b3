"""The local vector table: LINT0 and LINT1, thermal and performance entries, errors."""

import pytest

from localapics import (
    EOI,
    ERROR,
    ESR,
    EXTINT,
    FIXED,
    ICR,
    ISR,
    LINT0,
    LINT1,
    MASKED,
    PERFORMANCE,
    THERMAL,
    TPR,
    make,
    vectors,
)


def test_virtual_wire_mode() -> None:
    apic, heard, _ = make(enabled=False)
    apic.virtual_wire()
    apic.set_wire(0, high=True)
    assert apic.pending
    assert heard.levels == [True]
    assert apic.acknowledge() == 0x70
    assert vectors(apic, ISR) == set(), "the 8259's interrupts need no EOI here"
    apic.set_wire(0, high=False)
    assert not apic.pending
    apic.set_wire(1, high=True)
    apic.set_wire(1, high=False)
    apic.set_wire(1, high=True)
    assert heard.calls == ["nmi", "nmi"]


def test_an_extint_is_not_held_back_by_priorities() -> None:
    apic, _, _ = make()
    apic.write(LINT0, 0x700)
    apic.write(TPR, 0xFF)
    apic.set_wire(0, high=True)
    assert apic.pending
    apic.write(LINT0, 0x700 | MASKED)
    assert not apic.pending
    apic.write(LINT0, 0x700)
    assert apic.pending, "the wire is still high"


def test_an_extint_from_the_bus() -> None:
    apic, _, pic = make()
    assert apic.accept(EXTINT, 0, level=False)
    assert apic.pending
    assert apic.acknowledge() == 0x70
    assert not apic.pending
    assert pic.asked == 1


def test_a_fixed_lint_by_edge() -> None:
    apic, _, _ = make()
    apic.write(LINT1, 0x41)
    apic.set_wire(1, high=True)
    assert apic.acknowledge() == 0x41
    apic.write(EOI, 0)
    assert not apic.pending
    apic.set_wire(1, high=True)
    assert not apic.pending, "no new edge"
    apic.set_wire(1, high=False)
    apic.set_wire(1, high=True)
    assert apic.pending


def test_a_fixed_lint_by_level_asks_again_until_the_wire_falls() -> None:
    apic, heard, _ = make()
    apic.write(LINT0, 0x8041)
    apic.set_wire(0, high=True)
    assert apic.read(LINT0) == 0xC041, "remote IRR"
    assert apic.acknowledge() == 0x41
    assert not apic.pending
    apic.write(EOI, 0)
    assert apic.pending
    assert apic.acknowledge() == 0x41
    apic.set_wire(0, high=False)
    apic.write(EOI, 0)
    assert not apic.pending
    assert apic.read(LINT0) == 0x8041
    assert heard.ended == [0x41, 0x41]


def test_a_masked_lint_is_heard_when_it_is_unmasked_by_level_only() -> None:
    apic, _, _ = make()
    apic.write(LINT0, 0x8041 | MASKED)
    apic.set_wire(0, high=True)
    assert not apic.pending
    apic.write(LINT0, 0x8041)
    assert apic.pending
    apic.acknowledge()
    apic.write(LINT1, 0x51 | MASKED)
    apic.set_wire(1, high=True)
    apic.write(LINT1, 0x51)
    assert not apic.pending


def test_thermal_and_performance_entries() -> None:
    apic, heard, _ = make()
    apic.local_interrupt(1)
    assert not apic.pending
    apic.write(THERMAL, 0x61)
    apic.local_interrupt(1)
    apic.local_interrupt(1)
    assert apic.acknowledge() == 0x61
    apic.write(PERFORMANCE, 0x400)
    apic.local_interrupt(2)
    apic.local_interrupt(2)
    assert heard.calls == ["nmi"], "the first one masks the entry"
    assert apic.read(PERFORMANCE) == 0x400 | MASKED


# ---- errors


def test_the_error_status_is_brought_up_to_date_by_a_write() -> None:
    apic, _, _ = make()
    apic.read(0x10)
    assert apic.read(ESR) == 0
    apic.write(ESR, 0)
    assert apic.read(ESR) == 0x80
    apic.write(ESR, 0)
    assert apic.read(ESR) == 0


@pytest.mark.parametrize("offset", [0, 0x10, 0x40, 0x70, 0x290, 0x2F0, 0x3A0, 0x3D0, 0x3F0])
def test_an_illegal_register(offset: int) -> None:
    for access in (lambda apic: apic.read(offset), lambda apic: apic.write(offset, 1)):
        apic, _, _ = make()
        apic.write(ERROR, 0xFE)
        access(apic)
        apic.write(ESR, 0)
        assert apic.read(ESR) == 0x80
        assert apic.acknowledge() == 0xFE


def test_an_error_interrupts_once_until_it_is_looked_at() -> None:
    apic, _, _ = make()
    apic.write(ERROR, 0x41)
    for _ in range(2):
        apic.read(0)
        apic.read(0)
        assert apic.acknowledge() == 0x41
        apic.write(EOI, 0)
        apic.read(0)
        assert not apic.pending
        apic.write(ESR, 0)


def test_illegal_vectors() -> None:
    apic, heard, _ = make()
    assert not apic.accept(FIXED, 15, level=False)
    apic.write(ESR, 0)
    assert apic.read(ESR) == 0x40
    apic.write(ICR, 0x0F)
    apic.write(ESR, 0)
    assert apic.read(ESR) == 0x20
    assert heard.commands == []
