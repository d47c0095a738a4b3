"""Several processors: each queues in its own home, and knows it by where its GDT is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from unicorn import x86_const as x86

from vmi.doorbell import Doorbell, Feature
from vmi.flags import PageFlag, UpdateFlag
from vmi.queue import HOMES, NO_FAULT_PAGE, HeaderField, HomeField

if TYPE_CHECKING:
    from conftest import Machine, MachineFactory

SEVERAL = Feature.ATTACHED | Feature.SHADOW | Feature.IN_STEP
LINEAR_BASE = 0xC0000000
TABLE = 0xC0400000
PRESENT = 0x00123067
CAPACITY = 8
BEHIND = HeaderField.RECORDS + 4 * CAPACITY
GDTS = [0xC0500000 + 0x4000 * i for i in range(HOMES)]


class Processors:
    """Several processors that take turns on one machine."""

    def __init__(self, made: Machine) -> None:
        self.made = made
        self.header = made.attached().address
        self.stride = made.read(self.header + BEHIND + HomeField.STRIDE)

    def run_on(self, number: int, gdt: int | None = None) -> None:
        """From now on this one runs; by default with a GDT that only it has."""
        base = GDTS[number] if gdt is None else gdt
        self.made.uc.reg_write(x86.UC_X86_REG_GDTR, (0, base, 0xFF, 0))
        self.made.home = number + 1

    def word(self, number: int, offset: int) -> int:
        return self.made.read(self.header + self.stride * number + offset)

    def records(self, number: int) -> list[int]:
        count = self.word(number, HeaderField.COUNT)
        return [self.word(number, HeaderField.RECORDS + 4 * i) for i in range(count)]

    @property
    def asked(self) -> int:
        """How often a processor has asked for its home."""
        return [ring.function for ring in self.made.rings].count(Doorbell.FIND_HOME)


@pytest.fixture
def processors(machine: MachineFactory) -> Processors:
    made = machine("batching", queue=CAPACITY, features=SEVERAL)
    made.map_linear()
    return Processors(made)


def change(made: Machine, at: int = TABLE) -> int:
    """A change of a present entry; answers its record."""
    made.write(at, PRESENT)
    made.call("SetPxE", eax=0, edx=at, ecx=UpdateFlag.PT)
    return at - LINEAR_BASE | 1


def test_homes_are_alike(processors: Processors) -> None:
    made = processors.made
    assert processors.word(0, BEHIND + HomeField.COUNT) == HOMES
    assert processors.stride % 64 == 0
    assert HOMES * processors.stride <= len(made.data_range)
    for number in range(HOMES):
        assert processors.word(number, HeaderField.COUNT) == 0
        assert processors.word(number, HeaderField.FAULT_PAGE) == NO_FAULT_PAGE
        assert processors.word(number, BEHIND + HomeField.KEY) == 0


def test_each_queues_in_its_own(processors: Processors) -> None:
    for number in range(HOMES):
        processors.run_on(number)
        processors.made.call("GetCR3")
    expected = []
    for number in range(HOMES):
        processors.run_on(number)
        expected.append([change(processors.made, TABLE + 4 * number)])
    assert [processors.records(number) for number in range(HOMES)] == expected
    assert processors.asked == HOMES


def test_who_has_asked_does_not_ask_again(processors: Processors) -> None:
    for number in (0, 1, 5, 1, 0, 5, 5):
        processors.run_on(number)
        change(processors.made)
        processors.made.call("GetCR3")
        processors.made.call("ReleasePage", eax=5, edx=PageFlag.PT)
    assert processors.asked == 3


def test_another_gdt_or_task_register_is_asked_about(processors: Processors) -> None:
    made = processors.made
    processors.run_on(1)
    made.call("SetCR3", eax=0x5000)
    processors.run_on(1, gdt=GDTS[0])
    assert made.call("GetCR3") == 0x5000
    assert processors.asked == 2
    made.uc.reg_write(x86.UC_X86_REG_TR, (0x80, 0, 0x67, 0x8B00))
    assert made.call("GetCR3") == 0x5000
    assert processors.asked == 3


def test_a_shared_gdt_is_told_apart_by_the_task_register(processors: Processors) -> None:
    made = processors.made
    for number in (0, 1, 0, 1):
        processors.run_on(number, gdt=GDTS[0])
        made.uc.reg_write(x86.UC_X86_REG_TR, (0x80 + 8 * number, 0, 0x67, 0x8B00))
        made.call("SetCR3", eax=0x5000 + 0x1000 * number)
    assert processors.asked == 2
    assert made.call("GetCR3") == 0x6000


@pytest.mark.parametrize("number", [0, 1])
def test_a_change_is_everybodys(processors: Processors, number: int) -> None:
    """Whoever invalidates must know of it: one word for all."""
    made = processors.made
    processors.run_on(number)
    change(made)
    assert processors.word(0, HeaderField.DOWNGRADE) == 1
    processors.run_on(1 - number)
    made.call("InvalPage", eax=0x08048000)
    assert made.rings[-1].function is Doorbell.INVALIDATE_PAGE


def test_a_release_is_everybodys(processors: Processors) -> None:
    processors.run_on(1)
    processors.made.call("ReleasePage", eax=5, edx=PageFlag.PT)
    assert processors.word(0, HeaderField.DOWNGRADE) == 1


def test_each_has_its_cr3(processors: Processors) -> None:
    made = processors.made
    for number in (0, 1, 2):
        processors.run_on(number)
        made.call("SetCR3", eax=0x1000 * (number + 5))
    for number in (2, 0, 1):
        processors.run_on(number)
        assert made.call("GetCR3") == 0x1000 * (number + 5)


def test_each_has_its_fault_page(processors: Processors) -> None:
    made = processors.made
    page = 0x08048000 | UpdateFlag.PT | UpdateFlag.CURRENT_AS
    processors.run_on(0)
    made.call("GetCR3")
    made.write(processors.header + HeaderField.FAULT_PAGE, page)
    for number, said in ((0, 0), (1, 1)):
        processors.run_on(number)
        made.write(TABLE, PRESENT)
        made.call("SetPxE", eax=0, edx=TABLE, ecx=page)
        assert processors.word(0, HeaderField.DOWNGRADE) == said


def test_slot_0_is_everybodys_and_the_others_are_each_ones(processors: Processors) -> None:
    made = processors.made
    for number in (0, 1):
        processors.run_on(number)
        made.call("SetLinearMapping", (0x700 + number,), eax=1, edx=0x10000000, ecx=1)
    made.uc.mem_map(0x10000000, 0x1000)
    for number in (0, 1):
        processors.run_on(number)
        change(made)
        made.call("SetPxE", eax=PRESENT, edx=0x10000000, ecx=UpdateFlag.PT)
        assert processors.records(number) == [
            TABLE - LINEAR_BASE | 1,
            (0x700 + number) << 12 | 1,
        ]
        made.write(0x10000000, 0)


def test_after_init_a_home_is_taken_over_empty(processors: Processors) -> None:
    """The monitor has taken the key away: CR3 and mappings are not what they were."""
    made = processors.made
    processors.run_on(1)
    made.call("SetCR3", eax=0x7000)
    made.call("SetLinearMapping", (0x700,), eax=2, edx=0x10000000, ecx=1)
    made.write(processors.header + processors.stride + BEHIND + HomeField.KEY, 0)
    made.uc.reg_write(x86.UC_X86_REG_CR3, 0)
    assert made.call("GetCR3") == 0, "the processor's own"
    made.uc.mem_map(0x10000000, 0x1000)
    made.call("SetPxE", eax=PRESENT, edx=0x10000000, ecx=UpdateFlag.PT)
    assert made.rings[-1].function is Doorbell.UPDATE_ENTRY


def test_instructions_for_each_processor(processors: Processors) -> None:
    made = processors.made
    update = made.address_of("SetPxE")
    for number in range(HOMES):
        processors.run_on(number)
        made.call("GetCR3")
        found = made.count(update, eax=PRESENT, edx=TABLE + 4 * number, ecx=UpdateFlag.PT)
        assert found == 28 + 2 * number


def test_a_host_that_names_no_home(processors: Processors) -> None:
    processors.run_on(3)
    processors.made.home = 0
    record = change(processors.made)
    assert processors.records(0) == [record]
