"""Slot lists: replaced as a whole, checked first, aliased, read-only."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import Any

import pytest

from vmm.core.errors import BadDescription
from vmm.core.memory import GuestMemory
from vmm.engine.kvm.device import KvmRefused
from vmm.engine.kvm.slots import Slot, slots_of
from vmm.engine.kvm.uapi import Exit, Ioctl

PAGE = 4096
MakeSandbox = Callable[[bytes], Any]

STORE_AND_LOAD = (
    b"\xb8\x44\x33\x22\x11"  # mov $0x11223344, %eax
    b"\xa3\x00\x00\x02\x00"  # mov %eax, 0x20000
    b"\x8b\x1d\x00\x00\x03\x00"  # mov 0x30000, %ebx
    b"\xf4"
)


def test_two_slots_with_the_same_bytes(sandbox: MakeSandbox) -> None:
    box = sandbox(STORE_AND_LOAD)
    shared = mmap.mmap(-1, PAGE)
    box.slots.replace([*box.slots.slots, Slot(0x20000, PAGE, shared), Slot(0x30000, PAGE, shared)])
    assert box.enter() == Exit.HLT
    assert box.vcpu.registers.named("rbx") == [0x11223344]
    assert shared[:4] == b"\x44\x33\x22\x11"


def test_a_store_to_a_read_only_slot_exits_and_loads_do_not(sandbox: MakeSandbox) -> None:
    box = sandbox(STORE_AND_LOAD)
    rom = mmap.mmap(-1, PAGE)
    rom[:4] = b"ROM!"
    box.slots.replace(
        [*box.slots.slots, Slot(0x20000, PAGE, rom, readonly=True), Slot(0x30000, PAGE, rom)]
    )
    assert box.enter() == Exit.MMIO
    address, data, size, is_write = struct.unpack_from("<Q8sIB", box.vcpu.area, 32)
    assert (address, data[:size], is_write) == (0x20000, b"\x44\x33\x22\x11", 1)
    assert box.enter() == Exit.HLT
    assert box.vcpu.registers.named("rbx") == [int.from_bytes(b"ROM!", "little")]
    assert rom[:4] == b"ROM!"


def test_a_slot_that_is_gone_exits(sandbox: MakeSandbox) -> None:
    box = sandbox(STORE_AND_LOAD)
    low = box.slots.slots
    box.slots.replace([*low, Slot(0x20000, PAGE, mmap.mmap(-1, PAGE))])
    box.slots.replace(low)
    assert box.slots.slots == low
    assert box.enter() == Exit.MMIO


MEMORY = mmap.mmap(-1, 2 * PAGE)


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ([Slot(0x800, PAGE, MEMORY)], "slot at 0x800 of 0x1000 bytes from 0x0: expected whole"),
        ([Slot(0, 0, MEMORY)], "expected whole pages"),
        ([Slot(0, PAGE, MEMORY, 2 * PAGE)], "0x2000-0x3000 is not within its memory of 0x2000"),
        (
            [Slot(0, 2 * PAGE, MEMORY), Slot(PAGE, PAGE, MEMORY)],
            "slot at 0x1000 overlaps the one at 0x0-0x2000",
        ),
    ],
)
def test_bad_lists_change_nothing(sandbox: MakeSandbox, slots: list[Slot], message: str) -> None:
    box = sandbox(b"\xf4")
    before = box.slots.slots
    with pytest.raises(BadDescription, match=message):
        box.slots.replace(slots)
    assert box.slots.slots == before
    assert box.enter() == Exit.HLT


def test_what_the_kernel_refuses_half_way_is_undone(
    sandbox: MakeSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = sandbox(b"\xf4")
    before = box.slots.slots
    told = box.slots._tell

    def refuse(number: int, slot: Slot, size: int) -> None:
        if slot.address == 0x50000:
            raise KvmRefused(Ioctl.SET_USER_MEMORY_REGION, 22)
        told(number, slot, size)

    monkeypatch.setattr(box.slots, "_tell", refuse)
    with pytest.raises(KvmRefused, match="KVM_SET_USER_MEMORY_REGION: Invalid argument"):
        box.slots.replace([Slot(0x40000, PAGE, MEMORY), Slot(0x50000, PAGE, MEMORY)])
    assert box.slots.slots == before
    assert box.enter() == Exit.HLT


@pytest.mark.no_kvm
def test_slots_of_the_guests_memory() -> None:
    memory = mmap.mmap(-1, 8 * PAGE)
    guest = GuestMemory(memory)
    guest.set_hole(2, 1, hole=True)
    guest.set_protected(3, 2, protected=True)
    assert slots_of(guest, memory, readonly=[6, 99]) == [
        Slot(0, 2 * PAGE, memory, 0),
        Slot(3 * PAGE, 2 * PAGE, memory, 3 * PAGE, readonly=True),
        Slot(5 * PAGE, PAGE, memory, 5 * PAGE),
        Slot(6 * PAGE, PAGE, memory, 6 * PAGE, readonly=True),
        Slot(7 * PAGE, PAGE, memory, 7 * PAGE),
    ]
