"""A guest's timer through the I/O APIC, with the device here, in a process, and killed there."""

import pytest

from vmm.core.event import Reason
from vmm.devices.ioapiclink import IoApicProcess
from vmm.machine import Machine, Run

TICKS = 6

GUEST = f"""
	.set APIC, 0x200000
	.set IOAPIC, 0x201000
	.set TICKS, FREE + 0x3000

	.macro ENTRY low, high
	movl $0x15, IOAPIC
	movl $\\high, IOAPIC + 0x10
	movl $0x14, IOAPIC
	movl $\\low, IOAPIC + 0x10
	.endm

start:	PAGING
	movl $0xfee00000 | OPEN, TABLE + 0x800
	movl $0xfec00000 | OPEN, TABLE + 0x804
	movl $0x1ff, APIC + 0xf0
	ENTRY {{entry}}, 0
	mov $0x34, %al				# the timer: 1 ms, input 2
	outb %al, $0x43
	mov $0xa9, %al
	outb %al, $0x40
	mov $0x04, %al
	outb %al, $0x40
	sti
1:	cmpl ${TICKS}, TICKS
	jb 1b
	cli
	mov IOAPIC + 0x10, %eax
	cmp ${{entry}}, %eax
	jne bad
	FINISH 0
bad:	FINISH 1
irq:	incl TICKS
	movl $0, APIC + 0xb0
	iretl
"""


@pytest.fixture
def machine(make_machine, tiny_guest):
    def make(entry: str = "0x41", *, process: bool = False) -> Machine:
        guest = tiny_guest(GUEST.format(entry=entry), handlers={0x41: "irq"})
        return make_machine(guest, apic=True, ioapic_process=process, max_instructions=100_000_000)

    return make


def kill_now_and_then(machine: Machine) -> tuple[Run, int]:
    """Run, and kill the device's process at each look at the world outside."""
    killed = 0

    def watch(_instructions: int) -> None:
        nonlocal killed
        home = machine.ioapic_home
        assert isinstance(home, IoApicProcess)
        assert home.process is not None
        home.process.kill()
        home.process.wait()
        killed += 1

    return machine.run(watch), killed


def test_the_timer_by_edge(machine) -> None:
    run = machine().run()
    assert run.outcome.ok, run
    exits = run.ledger.by_reason
    taken = exits[Reason.INTERRUPT].count + exits[Reason.INTERRUPT_WINDOW].count
    assert taken == TICKS
    # Each interrupt is ended by one light exit.
    assert exits[Reason.MMIO].light == TICKS + 1


def test_two_runs_are_equal(machine) -> None:
    assert machine().run() == machine().run()


@pytest.mark.parametrize("entry", ["0x41", "0x141"])
def test_the_device_in_a_process_is_killed_and_the_guest_goes_on(machine, entry: str) -> None:
    here = machine(entry)
    expected = here.run()
    there = machine(entry, process=True)
    run, killed = kill_now_and_then(there)
    assert killed > TICKS
    assert there.ioapic is not None
    assert there.ioapic.restarts > TICKS // 2
    assert run == expected


def test_an_nmi_entry_does_not_wait_for_the_guest(machine) -> None:
    """An NMI message is no vector: without a handler set for it nothing is delivered as 0x41."""
    here = machine("0x400")
    run = here.run()
    assert not run.outcome.ok
