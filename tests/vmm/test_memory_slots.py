"""Memory slots under a guest: replaced while it runs, the old list or the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import slotstress
from apstart import TRAMPOLINE, trampoline
from slotstress import FIXED, WINDOW, Stress, pair, with_tables
from vmm.core import is_compiled
from vmm.core.errors import BadDescription, BadSlots, VcpuThreadError
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import policy_named
from vmm.core.slots import MemorySlot
from vmm.machine import Machine

if TYPE_CHECKING:
    from conftest import MakeGuest, TinyGuest

PAGE = 4096
ROOT = Path(__file__).parents[2]
PAGINGS = ("", "PAGING")


def stress_guest(tiny_guest: MakeGuest, paging: str) -> TinyGuest:
    return tiny_guest(slotstress.SOURCE.format(paging=paging))


# ---- a thousand changes


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousand_random_changes_under_a_running_guest(
    tiny_guest: MakeGuest, paging: str, seed: int
) -> None:
    stress = Stress(
        stress_guest(tiny_guest, paging).data,
        seed,
        1000,
        paged=bool(paging),
        max_instructions=20_000_000,
    )
    result = stress.run()
    assert not result["problems"], result["problems"]
    assert result["outcome"] == "passed"
    assert result["changes"] == 1000
    # It has not been idle.
    assert min(result["loads"], result["calls"]) > 3000
    assert result["logged"] > 100


@pytest.mark.parametrize("policy", ["svm-unsync", "vtx-shadow", "npt"])
def test_changes_under_every_policy_with_a_shadow_that_is_checked(
    tiny_guest: MakeGuest, policy: str
) -> None:
    result = Stress(
        stress_guest(tiny_guest, "PAGING").data,
        3,
        60,
        paged=True,
        policy=policy_named(policy),
        check_shadow=True,
    ).run()
    assert (result["problems"], result["outcome"], result["changes"]) == ([], "passed", 60)


@pytest.mark.skipif(not is_compiled(), reason="the core is not compiled")
def test_compiled_and_interpreted_the_same_changes_are_the_same(
    tiny_guest: MakeGuest, tmp_path: Path
) -> None:
    guest = tmp_path / "guest"
    guest.write_bytes(stress_guest(tiny_guest, "PAGING").data)
    job = {"guest": str(guest), "seed": 5, "changes": 60, "paged": True}
    answers = []
    for interpreted in ("", "1"):
        paths = [str(ROOT), str(Path(slotstress.__file__).parent)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        environment.pop("VMIROM_INTERPRETED", None)
        if interpreted:
            environment["VMIROM_INTERPRETED"] = interpreted
        done = subprocess.run(
            [sys.executable, slotstress.__file__],
            input=json.dumps(job),
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        answers.append(json.loads(done.stdout))
    assert [answer["compiled"] for answer in answers] == [True, False]
    assert answers[0]["result"] == answers[1]["result"]
    assert not answers[0]["result"]["problems"]


# ---- the old list or the new one

# CMPSL loads from both windows in one instruction: they must show the same page.
WATCH = f"""
	.set ONE, {WINDOW:#x}
	.set OTHER, {WINDOW + 0x100000:#x}
start:
	cld
1:	mov $ONE, %esi
	mov $OTHER, %edi
	cmpsl
	jne 2f
	incl FREE
	cmpl $0, FREE + 4
	je 1b
	FINISH 0
2:	FINISH 1
"""


def test_a_running_cpu_sees_one_list_or_the_other(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    machine = make_machine(
        tiny_guest(WATCH), backings=(("extra", 4 * PAGE),), max_instructions=2_000_000_000
    )
    for page in range(4):
        at = slotstress.MEMORY + page * PAGE
        machine.ram[at : at + 4] = page.to_bytes(4, "little")
    machine.vm.set_memory(pair(0))
    changes = 300
    changed = threading.Event()

    def change() -> None:
        for number in range(changes):
            changed.clear()
            machine.set_memory(pair(number % 4))
            machine.vm.post(changed.set)
            changed.wait(60)
        machine.vm.post(lambda: machine.memory.load(0x200004, b"\1"))

    thread = threading.Thread(target=change)
    thread.start()
    run = machine.run()
    thread.join()
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    assert machine.memory.slots.slots == pair((changes - 1) % 4)


# ---- what is refused


def test_a_list_that_cannot_be_changes_nothing(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    machine = make_machine(tiny_guest("start: hlt"), apic=True)
    before = machine.memory.slots
    for slots, says in (
        ((*FIXED, MemorySlot(0x3FF000, PAGE)), "slot 2, 0x3ff000-0x3fffff .*overlaps slot 1"),
        ((*FIXED, MemorySlot(WINDOW, 1)), "slot 2, .*size 0x1: expected"),
        ((*FIXED, MemorySlot(0xFEE00000, PAGE)), "covers the local APIC's registers at 0xfee00000"),
    ):
        for call in (machine.set_memory, machine.vm.set_memory):
            with pytest.raises(BadSlots, match=says):
                call(slots)
    assert machine.memory.slots is before


def test_other_threads_may_ask_the_machine_but_not_the_cpus(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    machine = make_machine(tiny_guest("start: hlt"))
    raised: list[BaseException] = []

    def call() -> None:
        try:
            machine.vm.set_memory(FIXED)
        except VcpuThreadError as error:
            raised.append(error)
        machine.set_memory(FIXED[:1])

    thread = threading.Thread(target=call, name="stranger")
    thread.start()
    thread.join()
    assert "set_memory from thread 'stranger'" in str(raised[0])
    machine.vm.run_posted()
    assert machine.memory.slots.slots == FIXED[:1]


@pytest.mark.parametrize(
    ("backings", "says"),
    [
        ((("ram", PAGE),), "backing 'ram' is named twice"),
        ((("extra", 5),), "backing 'extra' of 5 bytes"),
        ((("extra", 4 << 30),), "expected at most"),
    ],
)
def test_backings_that_a_machine_cannot_have(
    tiny_guest: MakeGuest,
    make_machine: Callable[..., Machine],
    backings: tuple[tuple[str, int], ...],
    says: str,
) -> None:
    with pytest.raises(BadDescription, match=says):
        make_machine(tiny_guest("start: hlt"), backings=backings)


def test_a_guest_without_any_memory_ends_and_takes_nothing_with_it(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    machine = make_machine(tiny_guest("start: jmp start"))
    machine.set_memory([])
    run = machine.run()
    assert run.outcome.kind is not OutcomeKind.PASSED
    assert machine.memory.read32(0x100000) == 0xFFFFFFFF


# ---- several CPUs

# One CPU has the slots changed, the other one looks whether they belong together.
SEVERAL = f"""
	.set ONE, {WINDOW:#x}
	.set OTHER, {WINDOW + 0x100000:#x}
	.set READY, FREE
	.set WRONG, FREE + 4
	.set LOOKS, FREE + 8
start:
	PAGING
1:	pause
	cmpl $0, READY
	je 1b
	mov $200, %ebx
2:	mov $0x5f0, %edx
	outl %eax, (%dx)
	mov LOOKS, %eax
	add $3, %eax
3:	pause
	cmp LOOKS, %eax
	ja 3b
	dec %ebx
	jnz 2b
	cmpl $0, WRONG
	jne 4f
	FINISH 0
4:	FINISH 1
ap_start:
	mov $KERNEL_DATA, %eax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $0x180000, %esp
	PAGING
	cld
	movl $1, READY
5:	mov $ONE, %esi
	mov $OTHER, %edi
	cmpsl
	je 6f
	incl WRONG
6:	mov $OTHER + 8, %eax		# mov $page, %eax; ret
	call *%eax
	cmp $4, %eax
	jb 7f
	incl WRONG
7:	incl LOOKS
	jmp 5b
"""


@pytest.mark.parametrize("threads", [False, True], ids=["in turns", "threads"])
def test_all_cpus_see_a_change_together(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine], *, threads: bool
) -> None:
    guest = tiny_guest(SEVERAL)
    machine = make_machine(
        guest,
        cpus=2,
        threads=threads,
        backings=(("extra", 4 * PAGE),),
        devices=(slotstress.Plug(slotstress.Bell, name="bell"),),
        max_instructions=2_000_000_000,
    )
    with_tables(machine)
    for page in range(4):
        at = slotstress.MEMORY + page * PAGE
        code = b"\xb8" + page.to_bytes(4, "little") + b"\xc3"
        machine.ram[at : at + 14] = page.to_bytes(8, "little") + code
    machine.memory.load(TRAMPOLINE, trampoline(guest))
    machine.vm.set_memory(pair(0))
    changes = iter(range(1, 1000))
    bell = machine.devices["bell"]
    assert isinstance(bell, slotstress.Bell)
    bell.rung = lambda: machine.set_memory(pair(next(changes) % 4))
    machine.processors[1].init()
    machine.processors[1].startup(TRAMPOLINE >> 12)
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    assert next(changes) == 201
    again = machine.memory.slots.slots
    assert again == pair(200 % 4)
