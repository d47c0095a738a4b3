"""Whatever happens between two instructions, no translation outlives its invalidation.

The monitor is modelled down to one translation: that of `PAGE`, whose entry is at `TABLE`. It
is what the processor would use without asking, so it may be behind the entry until the guest
invalidates the page, and not a moment longer. The queue's fault page makes the ROM skip exits
for changes of that entry, and the model publishes and forgets it as the real monitor does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from rombuilder.rom import Flavour, Rom
from vmi.doorbell import Doorbell, Feature
from vmi.flags import UpdateFlag
from vmi.queue import FAULT_PAGE_VALID, NO_FAULT_PAGE, HeaderField, RecordKind

if TYPE_CHECKING:
    from conftest import Machine, MachineFactory

RETURN_TO = 0xC0A00000
TABLE = 0xC0400000
RECORD = 0x00400000 | RecordKind.ENTRY
PAGE, OTHER_PAGE = 0x08048000, 0x08049000
HERE = UpdateFlag.PT | UpdateFlag.CURRENT_AS | PAGE
READ_ONLY, COPY, THIRD = 0x00123065, 0x00456067, 0x00789067
CAPACITY = 8
ALONE = Feature.ATTACHED | Feature.SHADOW | Feature.IN_STEP | Feature.ALONE


class Monitor:
    """What the monitor does about one page; `forgetful` leaves the rule under test out."""

    def __init__(self, made: Machine, *, forgetful: bool = False) -> None:
        self.made = made
        self.queue = made.attached()
        self.queue.listener = self.follow
        self.forgetful = forgetful
        self.cached: int | None = None

    @property
    def entry(self) -> int:
        return self.made.read(TABLE)

    def fill(self) -> None:
        """The translation is made from the entry as it is."""
        self.cached = self.entry if self.entry & 1 else None
        if self.cached is not None and not self.forgetful:
            self.forget()

    def follow(self, record: int) -> None:
        if record == RECORD:
            self.fill()

    def forget(self) -> None:
        self.queue.set_word(HeaderField.FAULT_PAGE, NO_FAULT_PAGE)

    def touch(self) -> None:
        """The guest reads the page: a fault, unless it is cached."""
        if self.cached is None:
            self.queue.drain()
            self.fill()

    def write_fault(self, page: int = PAGE) -> None:
        """A write to a page that is present and read-only."""
        self.queue.drain()
        if page == PAGE:
            if self.entry & 3 != 1:
                return
            self.cached = None
        self.queue.set_word(HeaderField.FAULT_PAGE, page | FAULT_PAGE_VALID)

    def switch(self) -> None:
        """To another address space and back."""
        self.queue.drain()
        self.forget()

    def check(self) -> None:
        """Invalidated, the page is as its entry says, and nothing waits that could undo that."""
        stale = self.cached is not None and self.cached != self.entry
        assert not stale or self.queue.downgrade, "a change is lost"
        self.made.call("InvalPage", eax=PAGE)
        assert self.cached in (None, self.entry), "InvalPage changed nothing"
        self.touch()
        assert self.cached in (None, self.entry)
        self.queue.drain()
        assert self.cached in (None, self.entry)


Event = Callable[[Monitor], None]


def touch(monitor: Monitor) -> None:
    monitor.touch()


def drain(monitor: Monitor) -> None:
    monitor.queue.drain()


def drain_and_touch(monitor: Monitor) -> None:
    monitor.queue.drain()
    monitor.touch()


def fault_again(monitor: Monitor) -> None:
    monitor.write_fault()


def touch_and_fault_again(monitor: Monitor) -> None:
    monitor.touch()
    monitor.write_fault()


def fault_elsewhere(monitor: Monitor) -> None:
    monitor.write_fault(OTHER_PAGE)


def switch_and_touch(monitor: Monitor) -> None:
    monitor.switch()
    monitor.touch()


def fault_elsewhere_and_back(monitor: Monitor) -> None:
    monitor.write_fault(OTHER_PAGE)
    monitor.touch()
    monitor.write_fault()


def change(monitor: Monitor) -> None:
    """The handler changes the same entry, and sees to it that this is seen.

    Where it finds the entry cleared by the call that it interrupted, it is that call's
    caller who does: see what is weak in queue.S.
    """
    present = monitor.entry & 1
    monitor.made.nested("SetPxE", eax=THIRD, edx=TABLE, ecx=HERE)
    monitor.made.nested("InvalPage", eax=PAGE)
    assert monitor.cached in (None, THIRD) or not present


def change_and_touch(monitor: Monitor) -> None:
    change(monitor)
    monitor.touch()


def touch_and_change(monitor: Monitor) -> None:
    monitor.touch()
    change(monitor)


def change_and_leave(monitor: Monitor) -> None:
    """The handler clears the entry and leaves the invalidation to whom it interrupted."""
    monitor.made.nested("SetPxE", eax=0, edx=TABLE, ecx=HERE)


EVENTS: list[Event] = [
    touch,
    drain,
    drain_and_touch,
    fault_again,
    touch_and_fault_again,
    fault_elsewhere,
    fault_elsewhere_and_back,
    switch_and_touch,
    change,
    change_and_touch,
    touch_and_change,
    change_and_leave,
]


def set_entry(value: int, flags: int = HERE) -> Event:
    def prepare(monitor: Monitor) -> None:
        made = monitor.made
        made.prepare(made.address_of("SetPxE"), eax=value, edx=TABLE, ecx=flags)

    return prepare


def set_long_entry(value: int) -> Event:
    def prepare(monitor: Monitor) -> None:
        made = monitor.made
        made.prepare(made.address_of("SetPxELong"), (HERE,), eax=value, edx=0, ecx=TABLE)

    return prepare


def store_and_update(value: int) -> Event:
    def prepare(monitor: Monitor) -> None:
        made = monitor.made
        made.write(TABLE, value)
        made.prepare(made.address_of("UpdatePxE"), eax=TABLE, edx=HERE)

    return prepare


CALLS = {
    "SetPxE": set_entry(COPY),
    "SetPxE, DEFER": set_entry(COPY, HERE | UpdateFlag.DEFER),
    "SetPxE, not the current address space": set_entry(COPY, UpdateFlag.PT),
    "SetPxE, clear": set_entry(0),
    "SetPxELong": set_long_entry(COPY),
    "SetPxELong, clear": set_long_entry(0),
    "UpdatePxE": store_and_update(COPY),
    "UpdatePxE, clear": store_and_update(0),
}


def faulted(monitor: Monitor) -> None:
    monitor.touch()
    monitor.write_fault()


def faulted_elsewhere(monitor: Monitor) -> None:
    monitor.touch()
    monitor.write_fault(OTHER_PAGE)


def cleared_and_faulted(monitor: Monitor) -> None:
    """A record of the same entry waits already."""
    faulted(monitor)
    monitor.made.call("SetPxE", eax=READ_ONLY, edx=TABLE, ecx=HERE)


STATES: list[Event] = [faulted, faulted_elsewhere, cleared_and_faulted, touch]


def begin(made: Machine, state: Event, filled: int, *, forgetful: bool = False) -> Monitor:
    """`PAGE` is mapped read-only, and `filled` records of other entries wait."""
    made.map_linear()
    for name in ("SetPxE", "SetPxELong", "UpdatePxE", "InvalPage"):
        made.reloc(name)
    made.write(TABLE, READ_ONLY)
    monitor = Monitor(made, forgetful=forgetful)
    state(monitor)
    for index in range(filled):
        made.call("SetPxE", eax=COPY, edx=TABLE + 0x1000 + 4 * index, ecx=UpdateFlag.PT)
    return monitor


def interrupt_everywhere(monitor: Monitor, prepare: Event, events: list[Event]) -> None:
    """The call is interrupted between any two of its instructions, in a run for each."""
    made = monitor.made
    restore = made.snapshot()
    cached = monitor.cached

    def start_over() -> None:
        restore()
        monitor.cached = cached
        prepare(monitor)

    start_over()
    steps = 0
    while made.eip != RETURN_TO:
        made.step()
        steps += 1
    monitor.check()
    for event in events:
        for boundary in range(steps + 1):
            start_over()
            for _ in range(boundary):
                made.step()
            made.interrupt(lambda _made, event=event: event(monitor))
            if made.eip != RETURN_TO:
                made.finish()
            monitor.check()


@pytest.mark.parametrize("filled", [0, CAPACITY - 1, CAPACITY])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("visibility", ["tlb", "strict"])
@pytest.mark.parametrize("features", [ALONE, ALONE & ~Feature.ALONE], ids=["alone", "several"])
def test_no_change_is_lost(
    machine: MachineFactory,
    visibility: str,
    features: Feature,
    call: str,
    state: Event,
    filled: int,
) -> None:
    made = machine("batching", queue=CAPACITY, visibility=visibility, features=features)
    interrupt_everywhere(begin(made, state, filled), CALLS[call], EVENTS)


def test_the_fault_page_saves_the_exit(machine: MachineFactory) -> None:
    monitor = begin(machine("batching", queue=CAPACITY), faulted, 0)
    monitor.made.call("SetPxE", eax=COPY, edx=TABLE, ecx=HERE)
    monitor.check()
    assert Doorbell.INVALIDATE_PAGE not in [ring.function for ring in monitor.made.rings]


def test_a_monitor_that_does_not_forget_is_noticed(machine: MachineFactory) -> None:
    monitor = begin(machine("batching", queue=CAPACITY), faulted, 0, forgetful=True)
    with pytest.raises(AssertionError, match="a change is lost"):
        interrupt_everywhere(monitor, CALLS["SetPxE"], [touch])


COMPARE_FIRST = """	testb $ENTRY_PRESENT, (%edx)
	jz fresh
	push %eax
	push %ecx
	call compare
compare:
	pop %eax
	IF_FAULT_PAGE %eax, queue_header-compare, match
	pop %ecx
	popl (%edx)
	jmp 3f
match:
	pop %ecx
	popl (%edx)
	jmp 4f
fresh:
	mov %eax, (%edx)
	call 1f
"""


def test_a_comparison_before_the_store_is_noticed(
    machine: MachineFactory, altered_rom: Callable[..., Rom]
) -> None:
    rom = altered_rom(
        "queue.S",
        """	testb $ENTRY_PRESENT, (%edx)
	mov %eax, (%edx)			# a mov leaves the flags alone
	jnz 3f
	call 1f
""",
        COMPARE_FIRST,
        flavour=Flavour.BATCHING,
        queue=CAPACITY,
    )
    monitor = begin(machine("batching", rom=rom), faulted, 0)
    with pytest.raises(AssertionError, match="a change is lost"):
        interrupt_everywhere(monitor, CALLS["SetPxE"], [touch])
