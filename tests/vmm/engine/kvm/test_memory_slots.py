"""Memory slots on KVM: the same lists, refusals and logs as on the other engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import slotstress
from slotstress import FIXED, PAGE, Stress
from vmm.core.errors import BadSlots
from vmm.core.outcome import OutcomeKind
from vmm.core.slots import MemorySlot
from vmm.kvm_machine import KvmMachine
from vmm.machine import MachineDescription

MakeGuest = Callable[..., Any]
WINDOW = 0x800000


def test_random_changes_under_a_running_guest(tiny_guest: MakeGuest) -> None:
    guest = tiny_guest(slotstress.SOURCE.format(paging=""))
    result = Stress(guest.data, 1, 300, paged=False, kvm=True, seconds=60).run()
    assert not result["problems"], result["problems"]
    assert (result["outcome"], result["changes"]) == ("passed", 300)


LOGS = f"""
	.set LOGGED, {WINDOW:#x}
	.set ALIAS, {WINDOW + 0x100000:#x}
start:
	mov $0x5f0, %edx
	movl $1, LOGGED + 0x1000
	movl $1, ALIAS + 0x3000
	outl %eax, (%dx)
	mov LOGGED, %ebx
	outl %eax, (%dx)
	movl $1, LOGGED + 0x7000
	outl %eax, (%dx)
	FINISH 0
"""


def test_the_kernels_log_is_told_through_all_aliases(tiny_guest: MakeGuest) -> None:
    machine = KvmMachine(
        MachineDescription(
            tiny_guest(LOGS).data,
            memory=4 << 20,
            backings=(("extra", 8 * PAGE),),
            devices=(slotstress.Plug(slotstress.Bell, name="bell"),),
            seconds=30,
        )
    )
    logged = MemorySlot(WINDOW, 8 * PAGE, "extra", logging=True)
    alias = MemorySlot(WINDOW + 0x100000, 4 * PAGE, "extra")
    other = MemorySlot(WINDOW + 0x200000, PAGE, "extra")
    machine.set_memory((*FIXED, logged, alias))
    machine.memory.load(WINDOW + 0x5000, b"monitor")
    seen: list[bytes] = []

    def take() -> None:
        if not seen:
            # A list that changes in between loses nothing.
            machine.set_memory((*FIXED, logged, other))
        seen.append(machine.dirty_log(logged))

    bell = machine.devices["bell"]
    assert isinstance(bell, slotstress.Bell)
    bell.rung = take
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED
    assert seen == [b"\x2a", b"\0", b"\x80"]


def test_a_list_that_cannot_be_changes_nothing(tiny_guest: MakeGuest) -> None:
    machine = KvmMachine(MachineDescription(tiny_guest("start: hlt").data, memory=4 << 20))
    before = machine.memory.slots
    with pytest.raises(BadSlots, match=r"slot 2, .* overlaps slot 0"):
        machine.set_memory((*FIXED, MemorySlot(0, PAGE)))
    assert machine.memory.slots is before
    with pytest.raises(BadSlots, match="without a log"):
        machine.dirty_log(FIXED[0])
    machine.close()
