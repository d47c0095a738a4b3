"""The batch queue: what is queued, what rings, and what is told to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from unicorn import x86_const as x86

from queuecalls import (
    DEFER,
    HERE,
    OTHER,
    PAGE,
    PRESENT,
    PT,
    TABLE,
    entry_record,
    publish,
    rings,
    set_pxe,
)
from vmi.doorbell import Doorbell, Feature
from vmi.flags import LazyMode, PageFlag, TlbFlush, UpdateFlag
from vmi.queue import Record, RecordKind

if TYPE_CHECKING:
    from conftest import Machine, MachineFactory


# What is queued, and when it must be told


def test_a_new_entry_waits(made: Machine) -> None:
    set_pxe(made, PRESENT)
    queue = made.attached()
    assert queue.pending == [entry_record(TABLE)]
    assert Record.decode(queue.pending[0]) == Record(RecordKind.ENTRY, 0x400000)
    assert not queue.downgrade
    assert rings(made) == []


def test_an_entry_that_stays_absent_waits(made: Machine) -> None:
    made.write(TABLE, 0x1000)
    set_pxe(made, 0)
    assert made.attached().pending == [entry_record(TABLE)]
    assert rings(made) == []


@pytest.mark.parametrize("flags", [DEFER, DEFER | UpdateFlag.CURRENT_AS | 0x08048000])
def test_a_changed_entry_waits_if_it_may(made: Machine, flags: int) -> None:
    made.write(TABLE, PRESENT)
    set_pxe(made, 0, flags=flags)
    assert made.attached().pending == [entry_record(TABLE)]
    assert made.attached().downgrade
    assert rings(made) == []


def test_64_bit_entries_wait_if_they_may(made: Machine) -> None:
    made.write(TABLE + 8, 0x3067)
    made.call("SetPxELong", (DEFER,), eax=0, edx=0, ecx=TABLE + 8)
    assert made.attached().pending == [entry_record(TABLE + 8)]
    assert made.attached().downgrade


def test_64_bit_entries_that_are_new_wait(made: Machine) -> None:
    made.call("SetPxELong", (PT,), eax=0x5067, edx=3, ecx=TABLE + 8)
    assert (made.read(TABLE + 8), made.read(TABLE + 12)) == (0x5067, 3)
    assert rings(made) == []
    assert made.attached().pending == [entry_record(TABLE + 8)]
    assert not made.attached().downgrade


# As with a TLB: a change waits until the guest invalidates


@pytest.mark.parametrize("value", [0, OTHER, PRESENT & ~2])
@pytest.mark.parametrize("flags", [PT, DEFER, UpdateFlag.PD, PT | UpdateFlag.CURRENT_AS])
def test_a_changed_entry_waits(tlb: Machine, value: int, flags: int) -> None:
    tlb.write(TABLE, PRESENT)
    set_pxe(tlb, value, flags=flags)
    assert rings(tlb) == []
    assert tlb.attached().pending == [entry_record(TABLE)]
    assert tlb.attached().downgrade


@pytest.mark.parametrize("call", ["UpdatePxE", "UpdatePxELong"])
@pytest.mark.parametrize("flags", [PT, DEFER])
def test_a_stored_entry_waits_whatever_it_was(tlb: Machine, call: str, flags: int) -> None:
    tlb.call(call, eax=TABLE, edx=flags)
    assert rings(tlb) == []
    assert tlb.attached().pending == [entry_record(TABLE)]
    assert tlb.attached().downgrade


def test_64_bit_entries_that_change_wait(tlb: Machine) -> None:
    tlb.write(TABLE + 8, 0x3067)
    tlb.write(TABLE + 12, 1)
    tlb.call("SetPxELong", (PT,), eax=0x5067, edx=3, ecx=TABLE + 8)
    assert (tlb.read(TABLE + 8), tlb.read(TABLE + 12)) == (0x5067, 3)
    assert rings(tlb) == []
    assert tlb.attached().pending == [entry_record(TABLE + 8)]
    assert tlb.attached().downgrade


# The fault page: nothing of it is cached, so nothing is taken away


@pytest.mark.parametrize("flags", [HERE, HERE | UpdateFlag.DEFER])
@pytest.mark.parametrize("call", ["SetPxE", "UpdatePxE", "UpdatePxELong", "SetPxELong"])
def test_a_change_of_the_fault_page_takes_nothing_away(tlb: Machine, call: str, flags: int) -> None:
    publish(tlb)
    tlb.write(TABLE, PRESENT)
    if call == "SetPxE":
        set_pxe(tlb, OTHER, flags=flags)
    elif call == "SetPxELong":
        tlb.call(call, (flags,), eax=OTHER, edx=0, ecx=TABLE)
        assert tlb.read(TABLE) == OTHER
    else:
        tlb.call(call, eax=TABLE, edx=flags)
    assert tlb.attached().pending == [entry_record(TABLE)]
    assert not tlb.attached().downgrade
    tlb.call("InvalPage", eax=PAGE)
    assert rings(tlb) == []


@pytest.mark.parametrize(
    "flags",
    [
        PT | PAGE,
        PT | UpdateFlag.CURRENT_AS | (PAGE + 0x1000),
        PT | UpdateFlag.CURRENT_AS | (PAGE ^ 0x80000000),
        UpdateFlag.PD | UpdateFlag.CURRENT_AS | PAGE,
        UpdateFlag.PDP | UpdateFlag.CURRENT_AS | PAGE,
        UpdateFlag.PML4 | UpdateFlag.CURRENT_AS | PAGE,
        PT | UpdateFlag.PD | UpdateFlag.CURRENT_AS | PAGE,
    ],
)
def test_other_changes_take_something_away(tlb: Machine, flags: int) -> None:
    publish(tlb)
    tlb.write(TABLE, PRESENT)
    set_pxe(tlb, OTHER, flags=flags)
    assert tlb.attached().downgrade


@pytest.mark.parametrize("page", [0, PAGE, 0xFFFFF000])
@pytest.mark.parametrize("level", [UpdateFlag(1 << bit) for bit in range(4)])
def test_without_a_fault_page_none_matches(tlb: Machine, level: UpdateFlag, page: int) -> None:
    for flags in (level, level | UpdateFlag.CURRENT_AS, level | UpdateFlag.DEFER):
        tlb.write(TABLE, PRESENT)
        set_pxe(tlb, OTHER, flags=flags | page)
        assert tlb.attached().downgrade
        tlb.attached().drain()


def test_strict_visibility_knows_no_fault_page(strict: Machine) -> None:
    publish(strict)
    strict.write(TABLE, PRESENT)
    set_pxe(strict, OTHER, flags=HERE)
    assert rings(strict) == [Doorbell.FLUSH]


# By the letter: a change is told at once, unless it may wait


@pytest.mark.parametrize("value", [0, OTHER, PRESENT & ~2])
def test_a_changed_entry_is_told_at_once(strict: Machine, value: int) -> None:
    strict.write(TABLE, PRESENT)
    set_pxe(strict, value)
    queue = strict.attached()
    assert rings(strict) == [Doorbell.FLUSH]
    assert queue.applied == [entry_record(TABLE)]
    assert queue.count == 0
    assert not queue.downgrade


@pytest.mark.parametrize("flag", [UpdateFlag.PT, UpdateFlag.PD, UpdateFlag.PDP, UpdateFlag.PML4])
def test_a_changed_entry_waits_in_lazy_mode(strict: Machine, flag: UpdateFlag) -> None:
    strict.call("SetLazyMode", eax=LazyMode.MMU)
    strict.write(TABLE, PRESENT)
    set_pxe(strict, 0, flags=flag | UpdateFlag.CURRENT_AS | 0xFFFFF000)
    assert strict.attached().pending == [entry_record(TABLE)]
    assert strict.attached().downgrade
    assert rings(strict) == []


def test_cpu_mode_puts_nothing_off(strict: Machine) -> None:
    strict.call("SetLazyMode", eax=LazyMode.CPU)
    strict.write(TABLE, PRESENT)
    set_pxe(strict, 0)
    assert rings(strict) == [Doorbell.FLUSH]


@pytest.mark.parametrize("call", ["UpdatePxE", "UpdatePxELong"])
def test_a_stored_entry_may_have_been_anything(strict: Machine, call: str) -> None:
    strict.call(call, eax=TABLE, edx=PT)
    assert rings(strict) == [Doorbell.FLUSH]
    assert strict.attached().applied == [entry_record(TABLE)]
    strict.call(call, eax=TABLE + 8, edx=DEFER)
    assert strict.attached().pending == [entry_record(TABLE + 8)]
    assert strict.attached().downgrade


def test_64_bit_entries_that_change_are_told_at_once(strict: Machine) -> None:
    strict.write(TABLE + 8, 0x3067)
    strict.write(TABLE + 12, 1)
    strict.call("SetPxELong", (PT,), eax=0x5067, edx=3, ecx=TABLE + 8)
    assert (strict.read(TABLE + 8), strict.read(TABLE + 12)) == (0x5067, 3)
    assert rings(strict) == [Doorbell.FLUSH]
    assert strict.attached().applied == [entry_record(TABLE + 8)]


# Page tables coming and going


def test_announcements(made: Machine) -> None:
    made.call("AllocatePage", (768, 256), eax=0x345, edx=PageFlag.PD | PageFlag.CLONE, ecx=7)
    assert not made.attached().downgrade
    made.call("ReleasePage", eax=0x345, edx=PageFlag.PD)
    queue = made.attached()
    assert queue.downgrade
    assert [Record.decode(word) for word in queue.pending] == [
        Record(RecordKind.ALLOCATE, 0x345000, PageFlag.PD | PageFlag.CLONE),
        Record(RecordKind.RELEASE, 0x345000, PageFlag.PD),
    ]
    assert rings(made) == []


def test_unknown_page_flags_do_not_spoil_the_record(made: Machine) -> None:
    made.call("AllocatePage", (0, 0), eax=0x345, edx=0xFFFFFF01, ecx=0)
    assert Record.decode(made.attached().pending[0]).address == 0x345000


@pytest.mark.parametrize("frame", [0x100000, 0xFFFFFFFF])
def test_pages_beyond_4_gib_are_not_announced(made: Machine, frame: int) -> None:
    made.call("AllocatePage", (0, 0), eax=frame, edx=PageFlag.PT, ecx=0)
    made.call("ReleasePage", eax=frame, edx=PageFlag.PT)
    assert made.attached().count == 0
    assert rings(made) == []


# Points where the queue is due


def test_leaving_lazy_mode_tells_what_was_taken_away(strict: Machine) -> None:
    strict.call("SetLazyMode", eax=LazyMode.MMU)
    strict.write(TABLE, PRESENT)
    set_pxe(strict, 0)
    set_pxe(strict, PRESENT, TABLE + 4)
    assert rings(strict) == []
    strict.call("SetLazyMode", eax=LazyMode.NONE)
    assert rings(strict) == [Doorbell.FLUSH]
    assert strict.attached().applied == [entry_record(TABLE), entry_record(TABLE + 4)]
    strict.write(TABLE, PRESENT)
    set_pxe(strict, 0)
    assert rings(strict) == [Doorbell.FLUSH] * 2, "lazy mode is over"


def test_leaving_lazy_mode_lets_new_entries_wait(strict: Machine) -> None:
    strict.call("SetLazyMode", eax=LazyMode.MMU)
    set_pxe(strict, PRESENT)
    strict.call("SetLazyMode", eax=LazyMode.NONE)
    assert rings(strict) == []
    assert strict.attached().pending == [entry_record(TABLE)]


def test_other_changes_of_mode_flush_nothing(strict: Machine) -> None:
    strict.write(TABLE, PRESENT)
    set_pxe(strict, 0, flags=DEFER)
    for mode in (LazyMode.NONE, LazyMode.CPU, LazyMode.NONE, LazyMode.MMU, LazyMode.MMU):
        strict.call("SetLazyMode", eax=mode)
    assert rings(strict) == []
    strict.call("SetLazyMode", eax=LazyMode.CPU)
    assert rings(strict) == [Doorbell.FLUSH]


@pytest.mark.parametrize(
    ("call", "argument", "ring"),
    [
        ("InvalPage", 0x08049000, Doorbell.INVALIDATE_PAGE),
        ("FlushTLB", TlbFlush.TLB | TlbFlush.GLOBAL, Doorbell.FLUSH_TLB),
    ],
)
def test_invalidations_ring_only_for_what_was_taken_away(
    made: Machine, call: str, argument: int, ring: Doorbell
) -> None:
    made.call(call, eax=argument)
    set_pxe(made, PRESENT)
    made.call(call, eax=argument)
    assert rings(made) == []
    set_pxe(made, 0, flags=DEFER)
    made.call(call, eax=argument)
    assert rings(made) == [ring]
    assert made.rings[-1].argument == argument
    made.call(call, eax=argument)
    assert rings(made) == [ring]


@pytest.mark.parametrize("call", ["InvalPage", "FlushTLB"])
def test_without_a_shadow_in_step_every_invalidation_rings(
    machine: MachineFactory, call: str
) -> None:
    made = machine("batching", features=Feature.ATTACHED | Feature.SHADOW | Feature.ALONE)
    made.call(call, eax=1)
    made.call(call, eax=1)
    assert len(rings(made)) == 2


def test_set_cr3_drains_and_is_remembered(made: Machine) -> None:
    set_pxe(made, PRESENT)
    made.call("SetCR3", eax=0x00345000)
    assert rings(made) == [Doorbell.SET_CR3]
    assert made.rings[-1].argument == 0x00345000
    assert made.attached().pending == []
    assert made.call("GetCR3") == 0x00345000
    assert rings(made) == [Doorbell.SET_CR3]


def test_get_cr3_before_any_set_asks_the_processor(machine: MachineFactory) -> None:
    identity = machine("identity")
    made = machine("batching", calls="all")
    assert made.call("GetCR3") == identity.call("GetCR3")


def test_set_cr3_refused_goes_to_the_processor(made: Machine) -> None:
    made.refuse.add(Doorbell.SET_CR3)
    made.call("SetCR3", eax=0x00345000)
    assert made.uc.reg_read(x86.UC_X86_REG_CR3) == 0x00345000


@pytest.mark.parametrize("flags", [0x2, 0x202])
def test_set_cr3_keeps_the_interrupt_flag(made: Machine, flags: int) -> None:
    address = made.address_of("SetCR3")
    made.prepare(address, eax=0x00345000)
    made.uc.reg_write(x86.UC_X86_REG_EFLAGS, flags)
    made.finish()
    assert made.uc.reg_read(x86.UC_X86_REG_EFLAGS) & 0x200 == flags & 0x200


# A full queue


def test_a_full_queue_hands_over_the_record(made: Machine) -> None:
    for index in range(8):
        set_pxe(made, PRESENT, TABLE + 4 * index)
    assert rings(made) == []
    assert made.attached().count == 8
    set_pxe(made, PRESENT, TABLE + 32)
    assert rings(made) == [Doorbell.QUEUE_FULL]
    assert made.attached().applied == [entry_record(TABLE + 4 * index) for index in range(9)]
    assert made.attached().count == 0
    set_pxe(made, PRESENT, TABLE + 36)
    assert made.attached().pending == [entry_record(TABLE + 36)]


def test_a_full_queue_with_something_taken_away(made: Machine) -> None:
    for index in range(9):
        made.write(TABLE + 4 * index, PRESENT)
        set_pxe(made, 0, TABLE + 4 * index, DEFER)
    assert rings(made) == [Doorbell.QUEUE_FULL]
    assert made.attached().pending == []
    assert len(made.attached().applied) == 9


def test_full_queues_lose_nothing(made: Machine) -> None:
    for index in range(100):
        set_pxe(made, PRESENT, TABLE + 4 * index)
    queue = made.attached()
    expected = [entry_record(TABLE + 4 * index) for index in range(100)]
    assert queue.applied + queue.pending == expected
    assert len(rings(made)) == 100 // 9


# What the ROM writes


def test_the_image_does_not_change_outside_its_data(made: Machine) -> None:
    for index in range(20):
        made.write(TABLE, PRESENT)
        set_pxe(made, 0, TABLE, PT if index % 2 else DEFER)
        set_pxe(made, PRESENT, TABLE + 4 * index)
    made.call("SetCR3", eax=0x00345000)
    data = made.data_range
    now = made.image()
    assert now[: data.start] == made.rom.data[: data.start]
    assert now[data.stop :] == made.rom.data[data.stop :]


# The symbols for tests


@pytest.mark.parametrize("visibility", ["tlb", "strict"])
def test_omit_flush_drops_the_news(machine: MachineFactory, visibility: str) -> None:
    made = machine("batching", visibility=visibility, OMIT_FLUSH=1)
    made.map_linear()
    made.write(TABLE, PRESENT)
    set_pxe(made, 0)
    set_pxe(made, PRESENT, TABLE + 4)
    made.call("UpdatePxE", eax=TABLE, edx=PT)
    made.call("InvalPage", eax=0)
    made.call("FlushTLB", eax=1)
    assert rings(made) == []
    assert made.attached().pending == []


def test_unannounced_announces_nothing(machine: MachineFactory) -> None:
    made = machine("batching", UNANNOUNCED=1)
    made.map_linear()
    assert [ring.function for ring in made.rings] == [Doorbell.ATTACH]
    made.call("AllocatePage", (0, 0), eax=5, edx=PageFlag.PT, ecx=0)
    assert made.attached().pending == []
    set_pxe(made, PRESENT)
    assert made.attached().pending == [entry_record(TABLE)]
