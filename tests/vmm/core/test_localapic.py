"""The local APIC's registers, switched on and off, saved and restored."""

import pytest

from localapics import (
    CURRENT,
    DFR,
    DIVIDE,
    ERROR,
    ESR,
    FIXED,
    ICR,
    ICR_HIGH,
    ID,
    INIT,
    IRR,
    ISR,
    LDR,
    LINT0,
    LINT1,
    LVT,
    MASKED,
    NMI,
    PERFORMANCE,
    PPR,
    STARTUP,
    SVR,
    THERMAL,
    TIMER,
    TPR,
    VERSION,
    make,
    vectors,
)


def test_registers_after_reset() -> None:
    apic, _, _ = make(enabled=False, number=3)
    values = {offset: apic.read(offset) for offset in range(0, 0x400, 16)}
    expected = dict.fromkeys(range(0, 0x400, 16), 0)
    expected.update({ID: 3 << 24, VERSION: 0x50014, DFR: 0xFFFFFFFF, SVR: 0xFF})
    expected.update(dict.fromkeys(LVT, MASKED))
    del expected[ESR], values[ESR]
    assert values == expected
    assert apic.base_msr() == 0xFEE00800
    assert make()[0].base_msr() == 0xFEE00900


@pytest.mark.parametrize(
    ("offset", "written", "read"),
    [
        (ID, 0x12345678, 0x12000000),
        (VERSION, 0xFFFFFFFF, 0x50014),
        (TPR, 0xFFFFFF5A, 0x5A),
        (LDR, 0xFFFFFFFF, 0xFF000000),
        (DFR, 0, 0x0FFFFFFF),
        (SVR, 0xFFFFFFFF, 0x3FF),
        (ICR_HIGH, 0xFFFFFFFF, 0xFF000000),
        (TIMER, 0xFFFFFFFF, 0x700FF),
        (THERMAL, 0xFFFFFFFF, 0x107FF),
        (PERFORMANCE, 0xFFFFFFFF, 0x107FF),
        (LINT0, 0xFFFFFFFF, 0x1A7FF),
        (LINT1, 0xFFFFFFFF, 0x1A7FF),
        (ERROR, 0xFFFFFFFF, 0x100FF),
        (DIVIDE, 0xFFFFFFFF, 0xB),
        (ISR, 0xFFFFFFFF, 0),
        (IRR + 0x70, 0xFFFFFFFF, 0),
        (CURRENT, 0xFFFFFFFF, 0),
        (PPR, 0xFF, 0),
        # Delivery status reads idle: a command is done when its store is.
        (ICR, 0x000C1040, 0x000C0040),
    ],
)
def test_what_a_guest_can_write(offset: int, written: int, read: int) -> None:
    apic, _, _ = make()
    apic.write(offset, written)
    assert apic.read(offset) == read


def test_loads_and_stores_of_other_sizes() -> None:
    apic, _, _ = make()
    apic.store(TPR, 4, 0x40)
    assert apic.load(VERSION + 2, 1) == 5
    assert apic.load(VERSION, 2) == 0x14
    assert apic.load(VERSION + 2, 2) == 5
    # Across a register's end, and beyond its four bytes.
    assert apic.load(VERSION + 3, 2) == apic.load(VERSION + 4, 4) == 0
    # Only whole registers can be stored to.
    for offset, size in ((TPR, 1), (TPR, 2), (TPR + 1, 4), (TPR + 4, 4)):
        apic.store(offset, size, 0x50)
        assert apic.read(TPR) == 0x40


# ---- switched off


def test_disabled_by_software() -> None:
    apic, heard, _ = make()
    apic.write(LINT0, 0x700)
    apic.accept(FIXED, 0x41, level=False)
    apic.write(SVR, 0xFF)
    assert apic.read(LINT0) == 0x700 | MASKED
    apic.write(LINT0, 0x700)
    assert apic.read(LINT0) == 0x700 | MASKED, "the mask cannot be cleared"
    assert vectors(apic, IRR) == {0x41}, "what was pending is held"
    assert not apic.accept(FIXED, 0x42, level=False)
    assert apic.accept(NMI, 0, level=False)
    assert apic.accept(INIT, 0, level=False)
    assert apic.accept(STARTUP, 0x9F, level=False)
    assert heard.calls == ["nmi", "init", "startup 0x9f"]


def test_disabled_by_its_base_the_inputs_are_intr_and_nmi() -> None:
    apic, heard, pic = make()
    assert apic.is_at(0xFEE00123)
    apic.accept(FIXED, 0x41, level=False)
    assert apic.set_base_msr(0xFEE00100)
    assert not apic.is_at(0xFEE00123)
    assert not apic.pending
    assert not apic.accept(FIXED, 0x42, level=False)
    apic.set_wire(0, high=True)
    assert apic.pending
    assert apic.acknowledge() == 0x70
    assert pic.asked == 1
    apic.set_wire(1, high=True)
    assert heard.calls == ["nmi"]
    assert apic.set_base_msr(0xFEE00900)
    assert apic.read(SVR) == 0xFF, "its state is that after power-up"
    assert not apic.pending, "LINT0 is masked again"


def test_the_base_moves_and_reserved_bits_fault() -> None:
    apic, _, _ = make()
    assert apic.set_base_msr(0xFEC80800)
    assert apic.base_msr() == 0xFEC80900, "who boots is not for software to say"
    assert apic.is_at(0xFEC80FFF)
    assert not apic.is_at(0xFEE00000)
    for reserved in (0x1, 0x400, 0x200, 1 << 32, 1 << 63):
        assert not apic.set_base_msr(0xFEE00800 | reserved)
    assert apic.base_msr() == 0xFEC80900


def test_init_keeps_the_id() -> None:
    apic, _, _ = make()
    apic.write(ID, 7 << 24)
    apic.write(TPR, 0x40)
    apic.accept(FIXED, 0x51, level=False)
    apic.initialise()
    assert apic.read(ID) == 7 << 24
    assert apic.read(TPR) == 0
    assert apic.read(SVR) == 0xFF
    assert not apic.pending
    apic.reset()
    assert apic.read(ID) == 0


# ---- state


def test_what_is_saved_is_restored() -> None:
    apic, _, _ = make(number=2)
    apic.write(TPR, 0x20)
    apic.write(LDR, 0x04000000)
    apic.write(LINT0, 0x8041)
    apic.set_wire(0, high=True)
    apic.acknowledge()
    apic.accept(FIXED, 0x51, level=True)
    apic.read(0)
    other, heard, _ = make(enabled=False)
    other.restore(apic.save())
    assert other.save() == apic.save()
    assert [other.read(at) for at in range(0x20, 0x400, 16)] == [
        apic.read(at) for at in range(0x20, 0x400, 16)
    ]
    assert heard.levels == [True]
    assert other.acknowledge() == 0x51
