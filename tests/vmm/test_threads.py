"""Virtual CPUs belong to a thread; what concerns the whole machine may come from any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from vmm.core.apicmessage import BadMessage
from vmm.core.errors import VcpuThreadError
from vmm.core.outcome import OutcomeKind
from vmm.core.registerids import REGISTER_NAMES
from vmm.machine import Machine

if TYPE_CHECKING:
    from conftest import MakeGuest

FOREVER = "start: jmp start"
WAITING = """
	.set APIC, 0xfee00000
start:
	movl $0x1ff, APIC + 0xf0
	sti
1:	cmpl $7, FREE
	jne 1b
	FINISH 0
interrupted:
	movl $7, FREE
	movl $0, APIC + 0xb0
	iretl
"""
VECTOR = 0x41
UNDER_WAY = 10_000
"""Instructions after which a tiny guest has its tables."""


def in_another_thread(action: Callable[[], object]) -> list[BaseException]:
    """What it raised there."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            action()
        except VcpuThreadError as error:
            raised.append(error)

    thread = threading.Thread(target=call, name="stranger")
    thread.start()
    thread.join()
    return raised


@pytest.mark.parametrize(
    "call",
    [
        lambda machine: machine.run(),
        lambda machine: machine.registers[0].get([REGISTER_NAMES["rip"]]),
        lambda machine: machine.registers[0].set({REGISTER_NAMES["rip"]: 0}),
    ],
)
def test_a_call_from_another_thread_is_refused(
    tiny_guest: MakeGuest, make_machine: Any, call: Callable[[Machine], object]
) -> None:
    machine = make_machine(tiny_guest("start: FINISH 0"))
    (error,) = in_another_thread(lambda: call(machine))
    assert "from thread 'stranger'" in str(error)
    assert "belong to thread 'MainThread'" in str(error)
    assert machine.run().outcome.kind is OutcomeKind.PASSED


def test_a_thread_can_take_the_cpus_over(tiny_guest: MakeGuest, make_machine: Any) -> None:
    machine = make_machine(tiny_guest("start: FINISH 0"))

    def take_over() -> None:
        machine.vm.bind()
        assert machine.run().outcome.kind is OutcomeKind.PASSED

    assert in_another_thread(take_over) == []
    with pytest.raises(VcpuThreadError, match="belong to thread 'stranger'"):
        machine.registers[0].get([])


def run_and(machine: Machine, action: Callable[[], object]) -> Any:
    """Run the machine while another thread acts, once the guest is under way."""
    started = threading.Event()
    actor = threading.Thread(target=lambda: (started.wait(), action()))
    actor.start()
    run = machine.run(lambda passed: started.set() if passed > UNDER_WAY else None)
    # A run may be over before anybody looks.
    started.set()
    actor.join()
    return run


def test_a_run_is_stopped_from_another_thread(tiny_guest: MakeGuest, make_machine: Any) -> None:
    machine = make_machine(tiny_guest(FOREVER), max_instructions=10**12)
    assert run_and(machine, machine.stop).outcome.kind is OutcomeKind.INTERRUPTED


def test_a_message_signalled_interrupt_comes_from_another_thread(
    tiny_guest: MakeGuest, make_machine: Any
) -> None:
    guest = tiny_guest(WAITING, handlers={VECTOR: "interrupted"})
    machine = make_machine(guest, max_instructions=10**12, apic=True)
    run = run_and(machine, lambda: machine.msi(0xFEE00000, VECTOR))
    assert run.outcome.kind is OutcomeKind.PASSED


def test_a_line_is_driven_from_another_thread(tiny_guest: MakeGuest, make_machine: Any) -> None:
    machine = make_machine(tiny_guest(FOREVER), max_instructions=10**12)

    def act() -> None:
        machine.irq_line(5, high=True)
        machine.stop()

    run_and(machine, act)
    machine.pc.interrupts.write(0x20, 1, 0x0A)
    assert machine.pc.interrupts.read(0x20, 1) & 1 << 5


def test_nonsense_is_refused_at_once(tiny_guest: MakeGuest, make_machine: Any) -> None:
    machine = make_machine(tiny_guest(FOREVER))
    with pytest.raises(ValueError, match="interrupt request 16: expected 0 to 15, without 2"):
        machine.irq_line(16, high=True)
    with pytest.raises(BadMessage):
        machine.msi(0x1000, VECTOR)


NMI = """
start:	PROLOGUE
1:	cmpl $1, FREE
	jb 1b
	FINISH 0
nmi:	incl FREE
	iretl
"""


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize(
    ("apic", "prologue", "arrives"),
    [
        (False, "", True),
        (True, "", True),
        # LINT1 masked; and the APIC switched off, with LINT1 masked before.
        (True, "movl $0x10400, 0xfee00360", False),
        (
            True,
            "movl $0x10400, 0xfee00360; mov $0x1b, %ecx; rdmsr; and $~0x800, %eax; wrmsr",
            True,
        ),
    ],
)
def test_lint1_is_the_nmi_unless_the_apic_says_otherwise(
    tiny_guest: MakeGuest,
    make_machine: Any,
    *,
    threads: bool,
    apic: bool,
    prologue: str,
    arrives: bool,
) -> None:
    guest = tiny_guest(NMI.replace("PROLOGUE", prologue or "nop"), handlers={2: "nmi"})
    most = 10**12 if arrives else 600_000_000
    machine = make_machine(guest, max_instructions=most, apic=apic, threads=threads)
    run = run_and(machine, machine.nmi)
    assert (run.outcome.kind is OutcomeKind.PASSED) == arrives, run.outcome
    with pytest.raises(IndexError):
        machine.nmi(1)
