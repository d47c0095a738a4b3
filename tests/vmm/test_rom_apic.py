"""The batching ROM's APICRead and APICWrite: which need an exit, and that none is missing."""

import pytest

from rombuilder.rom import Flavour, build_rom
from vmi.queue import APIC_MIRRORED, HeaderField
from vmm.core.event import Event, Reason
from vmm.machine import Machine

ROM = """
	.set ROM, 0xc0000
	.set TAKEN, FREE + 0x1000

	.macro OFFER number, where
	mov $\\number, %eax
	mov $ROM + VMI_GET_RELOC_OFFSET, %ecx
	call *%ecx
	cmp $RELOC_CALL_REL, %dl
	jne bad
	mov %eax, \\where
	.endm

	.macro WRITE register, value
	mov $\\register, %eax
	mov $\\value, %edx
	call *apic_write
	.endm

	.macro READ register, value
	mov $\\register, %eax
	call *apic_read
	cmp $\\value, %eax
	jne bad
	.endm

start:	PAGING
	mov $ROM + VMI_INIT_OFFSET, %eax
	call *%eax
	OFFER CALL_APICWrite, apic_write
	OFFER CALL_APICRead, apic_read
	jmp body

bad:	FINISH 1
high:	incl TAKEN
	WRITE 0xb0, 0
	iretl
low:	incl TAKEN
	WRITE 0xb0, 0
	iretl

	.balign 4
apic_write:	.long 0
apic_read:	.long 0
body:
"""


@pytest.fixture
def rom_guest(make_machine, tiny_guest):
    def make(source: str, **about) -> Machine:
        guest = tiny_guest(ROM + source, handlers={0x51: "high", 0x41: "low"})
        about.setdefault("apic", True)
        return make_machine(guest, rom=build_rom(Flavour.BATCHING).data, **about)

    return make


def rings(machine: Machine) -> dict[int, int]:
    """{doorbell function: times}."""
    found: dict[int, int] = {}
    for event, function, _, count in machine.vcpu.counters.places()[0]:
        if event is Event.HYPERCALL and function:
            found[function] = found.get(function, 0) + count
    return found


READ_BELL, WRITE_BELL = 11, 12


def test_reads_of_what_only_the_guest_changes_cost_nothing(rom_guest) -> None:
    machine = rom_guest(
        """
	READ 0x30, 0x50014
	WRITE 0xf0, 0x1ff
	READ 0xf0, 0x1ff
	WRITE 0x350, 0xffff0041
	READ 0x350, 0x10041
	READ 0xfee00030, 0x50014		# an address, as the proposal has it
	READ 0x300, 0
	READ 0x390, 0				# the current count is asked for
	READ 0x200, 0
	FINISH 0
"""
    )
    run = machine.run()
    assert run.outcome.ok, run
    assert rings(machine) == {WRITE_BELL: 2, READ_BELL: 2}
    assert Reason.MMIO not in run.ledger.by_reason
    assert run.complaints == ()


def test_every_mirrored_register_reads_as_it_is(rom_guest) -> None:
    machine = rom_guest(
        "".join(f"\tWRITE {at:#x}, {0x01234567 + at:#x}\n" for at in APIC_MIRRORED if at != 0x300)
        + "\tFINISH 0\n"
    )
    assert machine.run().outcome.ok
    mirror = machine.vcpu.queue.location()[0] + HeaderField.APIC_REGISTERS
    apic = machine.apics[0]
    assert {at: machine.memory.read32(mirror + at // 4) for at in APIC_MIRRORED} == {
        at: apic.read(at) for at in APIC_MIRRORED
    }


ONE = """
	WRITE 0xf0, 0x1ff
	sti
	WRITE 0x300, 0x40041
	WRITE 0x300, 0x40041
	cmpl $2, TAKEN
	jne bad
	READ 0x120, 0				# nothing is in service
	FINISH 0
"""


def test_the_end_of_an_interrupt_needs_no_exit(rom_guest) -> None:
    machine = rom_guest(ONE)
    run = machine.run()
    assert run.outcome.ok, run
    # Two commands, one store to the spurious vector, one load: no end among them.
    assert rings(machine) == {WRITE_BELL: 3, READ_BELL: 1}


def test_the_end_is_told_when_another_waits_for_it(rom_guest) -> None:
    """With interrupts off both are pending; the first one's end lets the second in."""
    machine = rom_guest(
        """
	WRITE 0xf0, 0x1ff
	WRITE 0x300, 0x40041
	WRITE 0x300, 0x40051
	sti
	nop
	cmpl $2, TAKEN
	jne bad
	READ 0x120, 0
	FINISH 0
"""
    )
    run = machine.run()
    assert run.outcome.ok, run
    # Three stores, and the end of the first: the second one's nobody waits for.
    assert rings(machine) == {WRITE_BELL: 4, READ_BELL: 1}


def test_one_that_comes_later_makes_the_end_told_again(make_machine, tiny_guest) -> None:
    guest = tiny_guest(
        ROM
        + """
	WRITE 0xf0, 0x1ff
	sti
	WRITE 0x300, 0x40061
	cmpl $3, TAKEN
	jne bad
	READ 0x120, 0
	FINISH 0

first:	WRITE 0x300, 0x40051			# these wait for the end of this one
	WRITE 0x300, 0x40041
	cmpl $0, TAKEN
	jne bad
	incl TAKEN
	WRITE 0xb0, 0
	iretl
""",
        handlers={0x61: "first", 0x51: "high", 0x41: "low"},
    )
    machine = make_machine(guest, rom=build_rom(Flavour.BATCHING).data, apic=True)
    run = machine.run()
    assert run.outcome.ok, run
    # Four stores, and the ends of the first two; the last one's nobody waits for.
    assert rings(machine) == {WRITE_BELL: 6, READ_BELL: 1}


def test_without_an_apic_the_calls_are_left_to_the_guest(rom_guest) -> None:
    run = rom_guest("\tFINISH 0\n", apic=False).run()
    assert run.outcome.detail == "the guest's check 1 failed"


def test_a_hostile_word_only_harms_the_guest(rom_guest) -> None:
    """The guest says that it has ended what it has not, and has not what it has."""
    machine = rom_guest(
        """
	WRITE 0xf0, 0x1ff
	mov $0xc0000, %edi
	mov $0x2000, %ecx
1:	movl $1, (%edi)				# the whole ROM, as far as it can be written
	add $4, %edi
	sub $4, %ecx
	jnz 1b
	sti
	mov $0xfee00000 | OPEN, %eax
	mov %eax, TABLE + 0x800
	movl $0x40041, 0x200300
	movl $0x40051, 0x200300
	FINISH 0
"""
    )
    machine.run()
    assert machine.apics[0].save()["eoi_promised"] in {0, 1}
