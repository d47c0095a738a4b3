"""The local APIC's registers, priorities and inputs, after the SDM's chapter on it."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.core.apicmessage import DeliveryMode
from vmm.core.localapic import LocalApic
from vmm.core.timers import Timers

ID, VERSION, TPR, APR, PPR, EOI, RRD = 0x20, 0x30, 0x80, 0x90, 0xA0, 0xB0, 0xC0
LDR, DFR, SVR, ISR, TMR, IRR, ESR = 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200, 0x280
ICR, ICR_HIGH, TIMER, THERMAL, PERFORMANCE = 0x300, 0x310, 0x320, 0x330, 0x340
LINT0, LINT1, ERROR, INITIAL, CURRENT, DIVIDE = 0x350, 0x360, 0x370, 0x380, 0x390, 0x3E0
LVT = (TIMER, THERMAL, PERFORMANCE, LINT0, LINT1, ERROR)
MASKED = 0x10000
FIXED, NMI, INIT, STARTUP, EXTINT = (
    DeliveryMode.FIXED,
    DeliveryMode.NMI,
    DeliveryMode.INIT,
    DeliveryMode.STARTUP,
    DeliveryMode.EXTINT,
)


@dataclass
class Heard:
    """What a local APIC said to the world."""

    commands: list[tuple[int, int]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    levels: list[bool] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def command(self, _apic: LocalApic, low: int, destination: int) -> None:
        self.commands.append((low, destination))

    def end_of_interrupt(self, vector: int) -> None:
        self.ended.append(vector)


class Pic:
    """Stands in for the 8259s."""

    def __init__(self) -> None:
        self.pending = True
        self.asked = 0

    def acknowledge(self) -> int:
        self.asked += 1
        return 0x70


def make(*, enabled: bool = True, number: int = 0) -> tuple[LocalApic, Heard, Pic]:
    heard, pic = Heard(), Pic()
    apic = LocalApic(number, number == 0, Timers(), lambda: 0, heard, pic)
    apic.on_change = heard.levels.append
    apic.on_nmi = lambda: heard.calls.append("nmi")
    apic.on_init = lambda: heard.calls.append("init")
    apic.on_startup = lambda page: heard.calls.append(f"startup {page:#x}")
    if enabled:
        apic.write(SVR, 0x1FF)
    return apic, heard, pic


def vectors(apic: LocalApic, register: int) -> set[int]:
    return {
        32 * word + bit
        for word in range(8)
        for bit in range(32)
        if apic.read(register + 16 * word) >> bit & 1
    }


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


# ---- priorities


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


# ---- LINT0 and LINT1


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


# ---- interrupt commands


@pytest.mark.parametrize(
    ("low", "sent"),
    [
        (0x00041, True),
        (0x00141, True),
        (0x00941, True),
        (0x04500, True),
        (0x0469F, True),
        (0x00400, True),
        (0xC0041, True),
        (0xC4500, True),
        (0x80041, True),
        # INIT de-assert, as kernels send it after the INIT: nobody is reset by it.
        (0x08500, False),
        (0xC8500, False),
        # To oneself or to all, by shorthand, only a fixed one can be sent.
        (0x80400, False),
        (0x40500, False),
        (0x80500, False),
        (0x40641, False),
        (0x80141, False),
        # Delivery modes that cannot be commanded.
        (0x00341, False),
        (0x00741, False),
    ],
)
def test_commands(low: int, *, sent: bool) -> None:
    apic, heard, _ = make()
    apic.write(ICR_HIGH, 0x03000000)
    apic.write(ICR, low)
    assert heard.commands == ([(low, 3)] if sent else [])


def test_to_oneself_by_shorthand() -> None:
    apic, heard, _ = make()
    apic.write(ICR, 0x40041)
    assert heard.commands == []
    assert apic.acknowledge() == 0x41


# ---- destinations


@pytest.mark.parametrize(
    ("ldr", "dfr", "destination", "meant"),
    [
        (0x04, 0xF, 0x04, True),
        (0x04, 0xF, 0x0C, True),
        (0x04, 0xF, 0x03, False),
        (0x00, 0xF, 0x0F, False),
        (0x00, 0xF, 0xFF, True),
        (0x24, 0x0, 0x24, True),
        (0x24, 0x0, 0x2F, True),
        (0x24, 0x0, 0x23, False),
        (0x24, 0x0, 0x34, False),
        (0x24, 0x0, 0xFF, True),
    ],
)
def test_logical_destinations(ldr: int, dfr: int, destination: int, *, meant: bool) -> None:
    apic, _, _ = make()
    apic.write(LDR, ldr << 24)
    apic.write(DFR, dfr << 28 | 0x0FFFFFFF)
    assert apic.is_destination(logical=True, destination=destination) == meant


def test_physical_destinations() -> None:
    apic, _, _ = make(number=5)
    assert [n for n in range(256) if apic.is_destination(logical=False, destination=n)] == [5, 255]


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
