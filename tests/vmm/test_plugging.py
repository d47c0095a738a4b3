"""Devices that another package adds: how they are plugged in, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from vmm.core.errors import BadDescription, DeviceFailure
from vmm.core.event import Reason
from vmm.core.outcome import OutcomeKind
from vmm.devices.pluggable import Board, Device, Option, Plug
from vmm.machine import Machine

if TYPE_CHECKING:
    from conftest import MakeGuest

PAGE = 0xFD000000
VECTOR = 0x45


class Echo(Device):
    """Keeps what was last written, at ports and in memory, and interrupts when told to."""

    options: ClassVar[Mapping[str, Option]] = {"port": 0x600, "irq": 5, "page": PAGE, "tag": "a"}

    def __init__(self, board: Board, port: int, irq: int, page: int, tag: str) -> None:
        super().__init__(board)
        self.ports = (range(port, port + 4),)
        self.memory = (range(page, page + 0x1000),)
        self.lines = (irq,)
        self.irq = irq
        self.tag = tag
        self.value = 0
        self.taken: list[int] = []

    def read(self, port: int, size: int) -> int:
        return self.value

    def write(self, port: int, size: int, value: int) -> None:
        self.value = value
        self.board.line(self.irq).level = False
        self.board.at(self.board.now() + 1000, self.interrupt)

    def interrupt(self) -> None:
        self.taken.append(self.board.now())
        self.board.line(self.irq).level = True

    def memory_read(self, address: int, size: int) -> int:
        return self.value + address

    def memory_write(self, address: int, size: int, value: int) -> None:
        self.value = value

    def save(self) -> dict[str, Any]:
        return {"value": self.value}

    def load(self, state: Mapping[str, Any]) -> None:
        self.value = state["value"]


class Broken(Echo):
    """Fails wherever it is told to."""

    options: ClassVar[Mapping[str, Option]] = {"where": "read"}

    def __init__(self, board: Board, where: str) -> None:
        if where == "init":
            raise ValueError("no such mood")
        super().__init__(board, 0x600, 5, PAGE, "")
        self.where = where

    def read(self, port: int, size: int) -> Any:
        if self.where == "answer":
            return "four"
        if self.where == "line":
            self.board.line(6).level = True
        return 1 // (self.where != "read")

    def memory_read(self, address: int, size: int) -> int:
        return 1 // (self.where != "load")

    def interrupt(self) -> None:
        raise LookupError("lost")

    def save(self) -> dict[str, Any]:
        return {"value": {1, 2}} if self.where == "save" else super().save()


def plug(kind: type[Device] = Echo, /, name: str = "echo", **options: Option) -> Plug:
    return Plug(kind, options, name)


MakeMachine = Callable[..., Machine]
PORTS = """
start:
	mov $0x600, %edx
	mov $0x12345678, %eax
	out %eax, (%dx)
	mov $0, %eax
	inw (%dx), %ax
	cmp $0x5678, %eax
	jne 1f
	FINISH 0
1:	FINISH 1
"""
MEMORY = """
start:
	movl $0x10, 0xfd000000
	cmpl $0xfd000018, 0xfd000008
	jne 1f
	cmpb $0x18, 0xfd000008
	jne 1f
	FINISH 0
1:	FINISH 1
"""
INTERRUPTED = """
start:
	mov $0x11, %al
	outb %al, $0x20
	mov $0x40, %al
	outb %al, $0x21
	mov $0x04, %al
	outb %al, $0x21
	mov $0x01, %al
	outb %al, $0x21
	mov $0xdf, %al
	outb %al, $0x21
	mov $0x600, %edx
	out %eax, (%dx)
	sti
	hlt
	FINISH 1
interrupted:
	FINISH 0
"""


@pytest.mark.parametrize(
    ("source", "reason", "count"), [(PORTS, Reason.IO, 3), (MEMORY, Reason.MMIO, 3)]
)
def test_accesses_reach_the_device_as_heavy_exits(
    tiny_guest: MakeGuest, make_machine: MakeMachine, source: str, reason: Reason, count: int
) -> None:
    run = make_machine(tiny_guest(source), devices=(plug(),)).run()
    assert run.outcome.kind is OutcomeKind.PASSED
    row = run.ledger.by_reason[reason]
    assert (row.count, row.heavy) == (count, count)


def test_it_interrupts_at_a_virtual_time(tiny_guest: MakeGuest, make_machine: MakeMachine) -> None:
    machine = make_machine(
        tiny_guest(INTERRUPTED, handlers={VECTOR: "interrupted"}), devices=(plug(),)
    )
    assert machine.run().outcome.kind is OutcomeKind.PASSED
    device = machine.devices["echo"]
    assert isinstance(device, Echo)
    assert len(device.taken) == 1


def test_two_of_a_kind_and_their_state(tiny_guest: MakeGuest, make_machine: MakeMachine) -> None:
    two = (plug(), plug(port=0x610, irq=6, page=PAGE + 0x1000, tag="b"))
    machine = make_machine(tiny_guest(PORTS), devices=two)
    assert machine.run().outcome.kind is OutcomeKind.PASSED
    states = machine.devices.save()
    assert states == {"echo": {"value": 0x12345678}, "echo.2": {"value": 0}}
    other = make_machine(tiny_guest(PORTS), devices=two)
    other.devices.load(states)
    assert other.devices.save() == states
    with pytest.raises(
        BadDescription, match=r"saved with devices echo; the machine has echo, echo\.2"
    ):
        other.devices.load({"echo": {"value": 1}})


@pytest.mark.parametrize(
    ("where", "source", "said"),
    [
        ("read", PORTS, "device echo: read of 2 at port 0x600: ZeroDivisionError"),
        ("answer", PORTS, "device echo: read of 2 at port 0x600: 'four', expected an integer"),
        ("line", PORTS, "interrupt request 6 is not declared; declared: 5"),
        ("load", MEMORY, "device echo: load of 4 at 0xfd000008: ZeroDivisionError"),
        (
            "timer",
            INTERRUPTED,
            r"device echo: timer at \d+ ns: LookupError: lost \(test_plugging.py",
        ),
    ],
)
def test_its_errors_end_the_run_and_name_it(
    tiny_guest: MakeGuest, make_machine: MakeMachine, where: str, source: str, said: str
) -> None:
    handlers = {VECTOR: "interrupted"} if source == INTERRUPTED else {}
    guest = tiny_guest(source, handlers=handlers)
    outcome = make_machine(guest, devices=(plug(Broken, where=where),)).run().outcome
    assert outcome.kind is OutcomeKind.DEVICE_FAILURE
    assert re.search(said, outcome.detail), outcome.detail


def test_a_state_that_no_file_could_hold(tiny_guest: MakeGuest, make_machine: MakeMachine) -> None:
    machine = make_machine(tiny_guest(PORTS), devices=(plug(Broken, where="save"),))
    with pytest.raises(DeviceFailure, match="device echo: saving its state: TypeError"):
        machine.devices.save()


@pytest.mark.parametrize(
    ("plugs", "said"),
    [
        ((plug(port=0x40),), "ports 0x0040-0x0043 of echo overlap 0x0040-0x0043 of pit"),
        (
            (plug(), plug(irq=6)),
            "device echo.2: ports 0x0600-0x0603 of echo.2 overlap 0x0600-0x0603 of echo",
        ),
        ((plug(irq=4),), "interrupt request 4 of echo is com1's"),
        ((plug(), plug(port=0x610)), "interrupt request 5 of echo.2 is echo's"),
        ((plug(irq=2),), "interrupt request 2: expected 0 to 15, without 2"),
        ((plug(port=0xFFFE),), "ports 0xfffe-0x10001: expected below 0x10000"),
        ((plug(port=-1),), r"ports range\(-1, 3\): expected a range"),
        ((plug(page=0x3000),), "memory 0x3000-0x3fff overlaps the guest's RAM, 0x400000 bytes"),
        ((plug(page=PAGE + 8),), "memory 0xfd000008-0xfd001007: expected whole pages"),
        ((plug(page=0xFEE00000),), "memory 0xfee00000-0xfee00fff overlaps the local APIC's"),
        (
            (plug(page=0xFEC00000),),
            "memory 0xfec00000-0xfec00fff of echo overlaps ioapic at 0xfec00000",
        ),
        ((plug(irq="five"),), "option irq=five: expected a number, decimal or with 0x"),
        ((plug(colour="red"),), "option 'colour': expected one of port, irq, page, tag"),
        ((plug(Broken, where="init"),), "device echo: making it: ValueError: no such mood"),
    ],
)
def test_what_cannot_be_plugged_in(
    tiny_guest: MakeGuest, make_machine: MakeMachine, plugs: tuple[Plug, ...], said: str
) -> None:
    with pytest.raises(BadDescription, match=said):
        make_machine(tiny_guest(PORTS), devices=plugs, apic=True)
