"""An interrupt between any two instructions of the queue code loses no update."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from vmi.flags import LazyMode, PageFlag, UpdateFlag
from vmi.queue import HeaderField, RecordKind

if TYPE_CHECKING:
    from conftest import Machine, MachineFactory

LINEAR_BASE = 0xC0000000
RETURN_TO = 0xC0A00000
TABLE = 0xC0400000
HANDLER_TABLE = 0xC0402000
PRESENT = 0x00123067
CAPACITY = 8
DEFER = UpdateFlag.PT | UpdateFlag.DEFER


def entry_record(va: int) -> int:
    return va - LINEAR_BASE | RecordKind.ENTRY


def handler_updates(made: Machine, told: list[int], *, present: bool, times: int = 1) -> None:
    """SetPxE from within the interrupt, of entries of its own."""
    for _ in range(times):
        va = HANDLER_TABLE + 4 * len(told)
        made.write(va, PRESENT if present else 0)
        made.nested("SetPxE", eax=0 if present else PRESENT, edx=va, ecx=DEFER)
        told.append(entry_record(va))


def nothing(_made: Machine, _told: list[int]) -> None:
    pass


def drain(made: Machine, _told: list[int]) -> None:
    made.attached().drain()


def update(made: Machine, told: list[int]) -> None:
    handler_updates(made, told, present=False)


def downgrade(made: Machine, told: list[int]) -> None:
    handler_updates(made, told, present=True)


def update_and_drain(made: Machine, told: list[int]) -> None:
    handler_updates(made, told, present=False)
    made.attached().drain()


def drain_and_update(made: Machine, told: list[int]) -> None:
    made.attached().drain()
    handler_updates(made, told, present=True, times=2)


def update_drain_update(made: Machine, told: list[int]) -> None:
    handler_updates(made, told, present=True, times=2)
    made.attached().drain()
    handler_updates(made, told, present=False, times=2)


def overflow(made: Machine, told: list[int]) -> None:
    handler_updates(made, told, present=True, times=CAPACITY + 2)


def drain_twice(made: Machine, told: list[int]) -> None:
    update_and_drain(made, told)
    update_and_drain(made, told)


def invalidate(made: Machine, told: list[int]) -> None:
    """Change an entry and drop its translation: gone when InvalPage returns."""
    handler_updates(made, told, present=True)
    made.nested("InvalPage", eax=0x08048000)
    assert told[-1] in made.attached().applied


def switch(made: Machine, told: list[int]) -> None:
    handler_updates(made, told, present=False)
    made.nested("SetCR3", eax=0x00345000)
    assert told[-1] in made.attached().applied


HANDLERS = [
    nothing,
    drain,
    update,
    downgrade,
    update_and_drain,
    drain_and_update,
    update_drain_update,
    overflow,
    drain_twice,
    invalidate,
    switch,
]

Handler = Callable[["Machine", list[int]], None]


class Case:
    """A call to interrupt: what the table holds before, its registers, its record."""

    def __init__(
        self,
        call: str,
        record: int,
        registers: dict[str, int],
        *,
        old: int = 0,
        takes_away: bool = False,
        stack: tuple[int, ...] = (),
        lazy: bool = False,
    ) -> None:
        self.call = call
        self.record = record
        self.registers = registers
        self.old = old
        self.takes_away = takes_away
        self.stack = stack
        self.lazy = lazy


ENTRY = entry_record(TABLE)
CASES = {
    "SetPxE new": Case("SetPxE", ENTRY, {"eax": PRESENT, "edx": TABLE, "ecx": 1}),
    "SetPxE clear, DEFER": Case(
        "SetPxE", ENTRY, {"eax": 0, "edx": TABLE, "ecx": DEFER}, old=PRESENT, takes_away=True
    ),
    "SetPxE clear, lazy": Case(
        "SetPxE",
        ENTRY,
        {"eax": 0, "edx": TABLE, "ecx": 1},
        old=PRESENT,
        takes_away=True,
        lazy=True,
    ),
    "SetPxE clear": Case(
        "SetPxE", ENTRY, {"eax": 0, "edx": TABLE, "ecx": 1}, old=PRESENT, takes_away=True
    ),
    "UpdatePxE, DEFER": Case(
        "UpdatePxE", ENTRY, {"eax": TABLE, "edx": DEFER}, old=PRESENT, takes_away=True
    ),
    "UpdatePxE": Case("UpdatePxE", ENTRY, {"eax": TABLE, "edx": 1}, old=PRESENT, takes_away=True),
    "SetPxELong new": Case(
        "SetPxELong", ENTRY, {"eax": PRESENT, "edx": 0, "ecx": TABLE}, stack=(1,)
    ),
    "SetPxELong, DEFER": Case(
        "SetPxELong",
        ENTRY,
        {"eax": 0, "edx": 0, "ecx": TABLE},
        old=PRESENT,
        takes_away=True,
        stack=(DEFER,),
    ),
    "AllocatePage": Case(
        "AllocatePage",
        0x345000 | PageFlag.PT << 2 | RecordKind.ALLOCATE,
        {"eax": 0x345, "edx": PageFlag.PT, "ecx": 0},
        stack=(0, 0),
    ),
    "ReleasePage": Case(
        "ReleasePage",
        0x345000 | PageFlag.PT << 2 | RecordKind.RELEASE,
        {"eax": 0x345, "edx": PageFlag.PT},
        takes_away=True,
    ),
}


CASES_BY_VISIBILITY = [
    (visibility, name)
    for visibility in ("tlb", "strict")
    for name, case in CASES.items()
    if visibility == "strict" or not case.lazy
]


def start(
    machine: MachineFactory, case: Case, filled: int, visibility: str = "tlb"
) -> tuple[Machine, list[int]]:
    """A machine about to make the call, with `filled` records in its queue."""
    made = machine("batching", queue=CAPACITY, visibility=visibility)
    made.map_linear()
    told: list[int] = []
    for name in ("SetPxE", "InvalPage", "SetCR3"):
        made.reloc(name)  # asked for now, as a guest does, and not from within a handler
    if case.lazy:
        made.call("SetLazyMode", eax=LazyMode.MMU)
    for index in range(filled):
        va = HANDLER_TABLE + 0x1000 + 4 * index
        made.call("SetPxE", eax=PRESENT, edx=va, ecx=1)
        told.append(entry_record(va))
    made.write(TABLE, case.old)
    made.prepare(made.address_of(case.call), case.stack, **case.registers)
    return made, told


def length(made: Machine) -> int:
    """Instructions of the call that is about to be made; the machine comes back unchanged."""
    restore = made.snapshot()
    steps = 0
    while made.eip != RETURN_TO:
        made.step()
        steps += 1
    restore()
    return steps


def check_nothing_lost(made: Machine, told: list[int]) -> None:
    queue = made.attached()
    assert Counter(queue.applied + queue.pending) == Counter(told)
    slots = min(queue.count, queue.capacity)
    assert all(queue.word(HeaderField.RECORDS + 4 * slot) for slot in range(slots)), (
        "a slot stays in flight"
    )


@pytest.mark.parametrize("filled", [0, 3, CAPACITY - 1, CAPACITY])
@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize(("visibility", "name"), CASES_BY_VISIBILITY)
def test_no_update_is_lost(
    machine: MachineFactory, visibility: str, name: str, handler: Handler, filled: int
) -> None:
    case = CASES[name]
    made, before = start(machine, case, filled, visibility)
    restore = made.snapshot()
    for boundary in range(1, length(made)):
        restore()
        told = list(before)
        for _ in range(boundary):
            made.step()
        made.interrupt(lambda interrupted, told=told: handler(interrupted, told))
        made.finish()
        told.append(case.record)
        check_nothing_lost(made, told)
        queue = made.attached()
        if case.takes_away and case.record in queue.pending:
            assert queue.downgrade, f"said nothing of what it took away, at {boundary}"
        queue.drain()
        check_nothing_lost(made, told)
        assert queue.pending == []


@pytest.mark.parametrize("handler", [drain, update_and_drain, overflow, drain_and_update])
@pytest.mark.parametrize("inner", [drain, update_and_drain, overflow])
@pytest.mark.parametrize("visibility", ["tlb", "strict"])
def test_interrupts_within_interrupts(
    machine: MachineFactory, visibility: str, handler: Handler, inner: Handler
) -> None:
    """The handler's own SetPxE is interrupted in turn, between any two instructions."""
    case = CASES["SetPxE clear, DEFER"]
    nested_steps = length(start(machine, CASES["SetPxE new"], 0, visibility)[0])
    made, before = start(machine, case, 2, visibility)
    restore = made.snapshot()
    for boundary in range(5, length(made)):
        for nested_boundary in range(5, nested_steps):
            restore()
            told = list(before)
            for _ in range(boundary):
                made.step()

            def interrupted(
                outer: Machine, told: list[int] = told, steps: int = nested_boundary
            ) -> None:
                handler(outer, told)
                va = HANDLER_TABLE + 0x2000
                esp = outer.esp - 4
                outer.write(esp, RETURN_TO)
                outer.prepare_nested(esp, outer.address_of("SetPxE"), PRESENT, va)
                for _ in range(steps):
                    outer.step()
                outer.interrupt(lambda again: inner(again, told))
                outer.finish()
                told.append(entry_record(va))

            made.interrupt(interrupted)
            made.finish()
            told.append(case.record)
            check_nothing_lost(made, told)
            made.attached().drain()
            check_nothing_lost(made, told)


@pytest.mark.parametrize("handler", [drain, downgrade, update_and_drain])
def test_leaving_lazy_mode_interrupted(machine: MachineFactory, handler: Handler) -> None:
    case = Case("SetLazyMode", 0, {"eax": LazyMode.NONE}, lazy=True)
    made, _ = start(machine, case, 0, "strict")
    made.write(TABLE, PRESENT)
    made.call("SetPxE", eax=0, edx=TABLE, ecx=1)
    made.prepare(made.address_of("SetLazyMode"), eax=LazyMode.NONE)
    restore = made.snapshot()
    for boundary in range(1, length(made)):
        restore()
        told = [ENTRY]
        for _ in range(boundary):
            made.step()
        made.interrupt(lambda interrupted, told=told: handler(interrupted, told))
        made.finish()
        assert ENTRY in made.attached().applied
        check_nothing_lost(made, told)
