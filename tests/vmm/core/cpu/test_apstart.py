"""SetInitialAPState: what reaches the machine's hook, and what is refused on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rombuilder.rom import Calls, build_rom
from vmi.apstate import ApState
from vmm.core.cpu.apstart import check_start
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, Run

GOOD = ApState(
    cr0=0x80050023,
    cr3=0x1000,
    cr4=0x10,
    eip=0xC0100000,
    esp=0xC0200000,
    cs=0x60,
    ss=0x68,
    ds=0x7B,
    es=0x7B,
    fs=0xD8,
    gs=0xE0,
    gdtr_limit=0xFF,
    gdtr_base=0xC0300000,
    idtr_limit=0x7FF,
    idtr_base=0xC0400000,
)
"""As vmi_startup_ipi_hook fills it."""

SOURCE = """
	.set ROM, 0xc0000
start:
	mov $ROM + VMI_INIT_OFFSET, %ebx
	call *%ebx
	mov $CALL_SetInitialAPState, %eax
	mov $ROM + VMI_GET_RELOC_OFFSET, %ebx
	call *%ebx
	cmp $RELOC_CALL_REL, %dl
	jne absent
	mov %eax, %ebx
	mov $STATE, %eax
	mov $3, %edx
	call *%ebx
	FINISH 0
absent:
	FINISH 0x40
"""
STATE = 0x106000


@pytest.fixture
def started(tiny_guest, make_machine) -> Callable[..., tuple[Run, list[tuple[int, ApState]]]]:
    """Hand over a state through the ROM; the run, and what the hook was told."""

    def run(
        state: ApState, *, hook: bool = True, calls: Calls = Calls.NEEDED
    ) -> tuple[Run, list[tuple[int, ApState]]]:
        told: list[tuple[int, ApState]] = []

        def start_ap(apic_id: int, given: ApState) -> None:
            if apic_id != 3:
                raise ValueError(f"there is no processor {apic_id}")
            told.append((apic_id, given))

        source = SOURCE.replace("$STATE", f"${STATE:#x}")
        guest = tiny_guest(source, pieces={STATE: state.encode()})
        machine: Machine = make_machine(guest, rom=build_rom(calls=calls).data)
        if hook:
            machine.vcpu.doorbell.serve_start(start_ap)
        return machine.run(), told

    return run


def test_a_state_reaches_the_machine_in_one_ring(started) -> None:
    run, told = started(GOOD)
    assert run.outcome.kind is OutcomeKind.PASSED, run
    assert told == [(3, GOOD)]
    assert run.complaints == ()


def test_one_processor_grants_nothing(started) -> None:
    """NONE, so that the guest goes its native way; with all calls, the native no-op."""
    assert started(GOOD, hook=False)[0].outcome.kind is not OutcomeKind.PASSED
    run, told = started(GOOD, hook=False, calls=Calls.ALL)
    assert run.outcome.kind is OutcomeKind.PASSED, run
    assert told == []
    assert run.complaints == ()


BAD = [
    ({"cr0": 0x10}, "CR0 0x10: real mode"),
    ({"efer": 0x100}, "EFER 0x100: bits 0x100 do not exist here"),
    ({"efer": 1 << 63}, "EFER 0x8000000000000000: bits"),
    ({"eflags": 0x20002}, "EFLAGS 0x20002: no processor begins in virtual-8086 mode"),
    ({"cs": 0}, "CS is the null selector 0x0"),
    ({"ss": 3}, "SS is the null selector 0x3"),
    ({"cs": 0x64}, "CS 0x64 is of an LDT"),
    ({"gs": 0x100}, "GS 0x100 is beyond the GDT's limit 0xff"),
    ({"gdtr_limit": 0}, "CS 0x60 is beyond the GDT's limit 0x0"),
    ({"cs": 0x63}, "CS 0x63 and SS 0x68 are not of ring 0"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_states_no_processor_can_begin_in(change: dict[str, int], message: str) -> None:
    check_start(GOOD)
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")):
        check_start(replace(GOOD, **change))


def test_a_bad_state_is_refused_in_the_report(started) -> None:
    run, told = started(replace(GOOD, cs=0))
    assert run.outcome.kind is OutcomeKind.PASSED, run
    assert told == []
    assert "doorbell START_AP at 0x" in run.complaints[0]
    assert "refused: CS is the null selector" in run.complaints[0]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("0x106000, 9", "there is no processor 9"),
        ("0x106001, 3", "are not on a multiple of 4"),
        ("0xfffffff0, 3", "refused"),
    ],
)
def test_nonsense_from_the_guest(tiny_guest, make_machine, words: str, complaint: str) -> None:
    source = (
        "start:\n mov $0xc0080, %ebx\n call *%ebx\n RING DOORBELL_START_AP, words\n"
        f" test %eax, %eax\n jz 1f\n FINISH 1\n1: FINISH 0\n .balign 4\nwords: .long {words}\n"
    )
    machine = make_machine(tiny_guest(source, pieces={STATE: GOOD.encode()}), rom=build_rom().data)

    def start_ap(apic_id: int, _state: ApState) -> None:
        raise ValueError(f"there is no processor {apic_id}")

    machine.vcpu.doorbell.serve_start(start_ap)
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED, run
    assert len(run.complaints) == 1
    assert complaint in run.complaints[0]
