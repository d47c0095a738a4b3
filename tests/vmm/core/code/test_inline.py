"""Blocks that count themselves count what the core's callback counts."""

import platform
from collections.abc import Callable
from typing import Any

import pytest

from bench.inputs import load_guest, load_rom
from tests.vmm.conftest import MakeGuest
from vmi.calls import CALLS
from vmm.core import is_compiled
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription, Run

pytestmark = pytest.mark.skipif(
    not is_compiled() or platform.machine() not in {"x86_64", "AMD64"},
    reason="only the compiled core on x86-64 has translated code count",
)

ROM_ADDRESS = 0xC0000
RDTSC = next(call.number for call in CALLS if call.name == "RDTSC")
GUESTS = ("forkstorm", "ctxswitch", "pagefault")


def machine(guest: str, rom: str) -> Machine:
    return Machine(
        MachineDescription(guest=load_guest(guest).image, rom=load_rom(rom).image, memory=32 << 20)
    )


def left(run: Run, on: Machine) -> tuple[Run, Any]:
    """What a run leaves, but for the host's part in it."""
    return run, on.vcpu.meter.calls()


@pytest.mark.parametrize("rom", ["none", "batching"])
@pytest.mark.parametrize("guest", GUESTS)
def test_counts_do_not_depend_on_who_counts(guest: str, rom: str) -> None:
    counted = []
    for wanted in (True, False):
        here = machine(guest, rom)
        here.vcpu.inline.wanted = wanted
        counted.append(left(here.run(), here))
        assert (here.vcpu.inline.placed > 50) is wanted
    assert counted[0] == counted[1]


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("most", [1, 40])
def test_a_full_table_of_blocks_starts_afresh(most: int, wanted: bool) -> None:
    roomy, narrow = machine("ctxswitch", "batching"), machine("ctxswitch", "batching")
    narrow.vcpu.table.most = most
    narrow.vcpu.inline.wanted = wanted
    assert left(narrow.run(), narrow) == left(roomy.run(), roomy)


def test_get_reloc_is_seen_to_return_to_code_that_counts_by_itself(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    source = """
start:	PAGING
	mov $1000, %esi
again:	mov $nothing, %ebx
	mov $CALL_RDTSC, %eax
	cmp $1, %esi
	jne 1f
	mov $ROM + VMI_GET_RELOC_OFFSET, %ebx
1:	call through_ebx
	dec %esi
	jnz again
	call *%eax
	FINISH 0
through_ebx:
	call *%ebx
	mov %eax, %edi
	ret
nothing:
	ret
	"""
    seen = []
    for wanted in (True, False):
        here = make_machine(
            tiny_guest(source.replace("ROM", str(ROM_ADDRESS))), rom=load_rom("identity").image
        )
        here.vcpu.inline.wanted = wanted
        run = here.run()
        assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
        calls = here.vcpu.meter.calls()
        assert calls[RDTSC][0] == 1
        seen.append((run, calls))
    assert seen[0] == seen[1]


def test_an_interrupt_comes_between_the_same_blocks(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    """A loop that only counts is left at the same instruction, whoever counts."""
    source = """
start:	PAGING
	mov $0x36, %al
	outb %al, $0x43
	mov $0x10, %al
	outb %al, $0x40
	outb %al, $0x40
	sti
	xor %ecx, %ecx
more:	inc %ecx
	cmp $3000000, %ecx
	jne more
	FINISH 0
	"""
    runs = []
    for wanted in (True, False):
        here = make_machine(tiny_guest(source))
        here.vcpu.inline.wanted = wanted
        runs.append(here.run())
    assert runs[0] == runs[1]
