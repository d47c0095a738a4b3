from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmi.calls import CALLS, TIMER_CALLS
from vmi.doorbell import Doorbell, Feature
from vmi.queue import NO_FAULT_PAGE, HeaderField
from vmi.relocation import RelocationKind

if TYPE_CHECKING:
    from conftest import Machine, MachineFactory

NOT_IMPLEMENTED = {*TIMER_CALLS, 71, 72}
"""What no flavour answers yet."""
APIC = {63, 64}
JUMPS = {33, 34}
QUEUED = {
    "SetCR3",
    "GetCR3",
    "SetPxE",
    "SetPxELong",
    "UpdatePxE",
    "UpdatePxELong",
    "AllocatePage",
    "ReleasePage",
    "InvalPage",
    "FlushTLB",
    "SetLinearMapping",
}


def kinds(made: Machine) -> dict[int, RelocationKind]:
    return {number: made.reloc(number).kind for number in range(80)}


def offered(made: Machine) -> set[int]:
    return {number for number, kind in kinds(made).items() if kind is not RelocationKind.NONE}


def test_identity_takes_over_every_call(machine: MachineFactory) -> None:
    answers = kinds(machine("identity"))
    expected = {call.number for call in CALLS} - NOT_IMPLEMENTED - APIC
    assert {n for n, kind in answers.items() if kind is not RelocationKind.NONE} == expected
    assert {n for n, kind in answers.items() if kind is RelocationKind.JUMP_REL} == JUMPS


def test_identity_with_the_needed_calls_only_takes_what_must_be_patched(
    machine: MachineFactory,
) -> None:
    assert offered(machine("identity", calls="needed")) == JUMPS


def test_apic_calls_are_offered_where_the_apic_is_known(machine: MachineFactory) -> None:
    made = machine("identity", APIC_VIRTUAL_BASE=0xC0500000)
    assert offered(made) >= APIC


@pytest.mark.parametrize("number", [74, 75, 255, 0x7FFFFFFF, 0xFFFFFFFF])
def test_unknown_calls_are_none(machine: MachineFactory, number: int) -> None:
    for flavour in ("identity", "batching"):
        answer = machine(flavour).reloc(number)
        assert answer.kind is RelocationKind.NONE
        assert answer.address == 0


def test_answers_move_with_the_image(machine: MachineFactory) -> None:
    for flavour in ("identity", "batching"):
        low = machine(flavour, base=0xC00C0000)
        high = machine(flavour, base=0xC00D0800)
        for number in range(74):
            here, there = low.reloc(number), high.reloc(number)
            assert here.kind is there.kind
            if here.kind not in (RelocationKind.NONE, RelocationKind.NOP):
                assert there.address - here.address == 0x10800
                assert 0 < here.address - low.base < len(low.rom.data)


def test_batching_offers_what_saves_an_exit(machine: MachineFactory) -> None:
    made = machine("batching")
    answers = kinds(made)
    names = {call.number: call.name for call in CALLS}
    calls = {names[n] for n, kind in answers.items() if kind is RelocationKind.CALL_REL}
    assert calls == QUEUED, "leaving lazy mode is no point where anything is due"
    assert {n for n, kind in answers.items() if kind is RelocationKind.JUMP_REL} == JUMPS
    assert [n for n, kind in answers.items() if kind is RelocationKind.NOP] == [65]


def test_strict_batching_offers_lazy_mode_too(machine: MachineFactory) -> None:
    plain, strict = machine("batching"), machine("batching", visibility="strict")
    assert offered(strict) == offered(plain) | {73}


def test_batching_all_offers_native_calls_too(machine: MachineFactory) -> None:
    made = machine("batching", calls="all")
    assert offered(made) == {call.number for call in CALLS} - NOT_IMPLEMENTED - APIC
    assert made.reloc(65).kind is RelocationKind.NOP
    assert made.reloc("SetPxE").address == made.symbol("queue_SetPxE")
    assert made.reloc("CPUID").address == made.symbol("native_CPUID")
    assert made.reloc("SetLazyMode").address == made.symbol("native_SetLazyMode")
    strict = machine("batching", calls="all", visibility="strict")
    assert strict.reloc("SetLazyMode").address == strict.symbol("queue_SetLazyMode")


@pytest.mark.parametrize("features", [None, Feature(0)])
def test_batching_without_a_host_is_identity(
    machine: MachineFactory, features: Feature | None
) -> None:
    made = machine("batching", features=features)
    assert offered(made) == JUMPS
    assert made.image() == made.rom.data
    every = machine("batching", calls="all", features=features)
    assert offered(every) == {call.number for call in CALLS} - NOT_IMPLEMENTED - APIC
    assert every.reloc("SetPxE").address == every.symbol("native_SetPxE")
    assert every.reloc("IODelay").kind is RelocationKind.CALL_REL


def test_without_a_shadow_page_tables_stay_native(machine: MachineFactory) -> None:
    made = machine("batching", features=Feature.ATTACHED)
    assert offered(made) == JUMPS | {65}


def test_attach_names_the_queue(machine: MachineFactory) -> None:
    made = machine("batching", queue=100)
    assert [ring.function for ring in made.rings] == [Doorbell.ATTACH]
    queue = made.attached()
    assert queue.address == made.symbol("__data_start")
    assert queue.word(HeaderField.REGION_SIZE) == len(made.data_range)
    assert queue.capacity == 100
    assert queue.count == 0
    assert not queue.downgrade
    assert queue.word(HeaderField.FAULT_PAGE) == NO_FAULT_PAGE
    assert len(made.data_range) >= HeaderField.RECORDS + 4 * 100


def test_the_header_words_are_where_the_protocol_says(machine: MachineFactory) -> None:
    symbols = machine("batching").rom.symbols
    start = symbols["queue_header"]
    assert start == symbols["__data_start"]
    assert symbols["queue_count"] - start == HeaderField.COUNT
    assert symbols["queue_downgrade"] - start == HeaderField.DOWNGRADE
    assert symbols["queue_fault_page"] - start == HeaderField.FAULT_PAGE
    assert symbols["queue_records"] - start == HeaderField.RECORDS


def test_identity_rings_nobody_and_writes_nothing(machine: MachineFactory) -> None:
    made = machine("identity")
    assert made.rings == []
    assert made.rom.symbols["__data_start"] == made.rom.symbols["__data_end"]
    assert made.image() == made.rom.data


def test_attaching_again_is_harmless(machine: MachineFactory) -> None:
    made = machine("batching")
    assert made.init() == 0
    assert offered(made) > JUMPS
