"""Linear mappings: entries told by guest-physical address, as the guest's map has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from queuecalls import DEFER, LINEAR_BASE, PRESENT, TABLE, rings, set_pxe
from vmi.doorbell import Doorbell
from vmi.queue import RecordKind

if TYPE_CHECKING:
    from conftest import Machine, MachineFactory


def test_the_first_linear_mapping_has_the_tables_of_the_boot_adopted(
    machine: MachineFactory,
) -> None:
    made = machine("batching")
    for slot in (1, 2, 3, 4):
        made.map_linear(slot)
    assert [ring.function for ring in made.rings] == [Doorbell.ATTACH]
    made.map_linear()
    assert [ring.function for ring in made.rings] == [Doorbell.ATTACH, Doorbell.ADOPT_TABLES]


def test_before_a_linear_mapping_entries_are_told_by_address(machine: MachineFactory) -> None:
    made = machine("batching")
    set_pxe(made, PRESENT)
    assert rings(made) == [Doorbell.UPDATE_ENTRY]
    assert made.rings[-1].argument == TABLE


@pytest.mark.parametrize("slot", [0, 1, 2, 3])
@pytest.mark.parametrize(("va", "told"), [(0xC0400000, 0x2000000), (0xC0400FFC, 0x2000FFC)])
def test_every_slot_translates(machine: MachineFactory, slot: int, va: int, told: int) -> None:
    made = machine("batching")
    made.call("SetLinearMapping", (0x2000,), eax=slot, edx=0xC0400000, ecx=1)
    set_pxe(made, PRESENT, va)
    assert made.attached().pending == [told | RecordKind.ENTRY]
    set_pxe(made, 0, va, DEFER)
    assert made.attached().pending == [told | RecordKind.ENTRY] * 2
    assert made.attached().downgrade
    set_pxe(made, PRESENT, va + 0x1000)
    assert rings(made) == [Doorbell.UPDATE_ENTRY]
    assert made.rings[-1].argument == va + 0x1000


def test_an_entry_in_no_slot_is_told_once_if_it_may_wait(made: Machine) -> None:
    made.map_linear(pages=1)
    made.write(TABLE, PRESENT)
    set_pxe(made, 0, flags=DEFER)
    assert rings(made) == [Doorbell.UPDATE_ENTRY]


def test_an_entry_in_no_slot_is_visible_at_once(strict: Machine) -> None:
    strict.map_linear(pages=1)
    strict.write(TABLE, PRESENT)
    set_pxe(strict, 0)
    assert rings(strict)[0] is Doorbell.UPDATE_ENTRY


def test_slots_do_not_mix(made: Machine) -> None:
    made.map_linear(0, 0xC0400000, 1)
    made.call("SetLinearMapping", (0x5000,), eax=2, edx=0xC0401000, ecx=2)
    made.call("SetLinearMapping", (0x9000,), eax=3, edx=0xC0500000, ecx=1)
    set_pxe(made, PRESENT, 0xC0402004)
    set_pxe(made, PRESENT, 0xC0500008)
    assert made.attached().pending == [0x5001004 | 1, 0x9000008 | 1]


@pytest.mark.parametrize("slot", [4, 5, 0xFFFFFFFF])
def test_slots_that_do_not_exist_are_ignored(made: Machine, slot: int) -> None:
    before = made.image()
    made.call("SetLinearMapping", (0,), eax=slot, edx=0, ecx=0x1000)
    assert made.image() == before


def test_a_slot_beyond_4_gib_is_empty(machine: MachineFactory) -> None:
    made = machine("batching")
    made.call("SetLinearMapping", (0x100000,), eax=0, edx=LINEAR_BASE, ecx=0x1000)
    set_pxe(made, PRESENT)
    assert rings(made) == [Doorbell.UPDATE_ENTRY]


def test_a_slot_ends_at_4_gib(machine: MachineFactory) -> None:
    made = machine("batching")
    made.call("SetLinearMapping", (0xFFFFF,), eax=0, edx=TABLE, ecx=0x1000)
    set_pxe(made, PRESENT, TABLE)
    assert made.attached().pending == [0xFFFFF000 | 1]
    set_pxe(made, PRESENT, TABLE + 0x1000)
    assert rings(made) == [Doorbell.UPDATE_ENTRY]


@pytest.mark.parametrize("pages", [0x100000, 0xFFFFFFFF])
def test_a_slot_ends_at_the_top_of_the_linear_space(machine: MachineFactory, pages: int) -> None:
    made = machine("batching")
    made.call("SetLinearMapping", (0,), eax=0, edx=0xC0401000, ecx=pages)
    set_pxe(made, PRESENT, 0xC0400FFC)
    assert rings(made) == [Doorbell.UPDATE_ENTRY]
    set_pxe(made, PRESENT, 0xC0401000)
    assert made.attached().pending == [1]
