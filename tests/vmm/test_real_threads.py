"""Virtual CPUs that run in parallel, each in a host thread of its own."""

from __future__ import annotations

import faulthandler
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from apstart import TRAMPOLINE, trampoline
from vmm.core.cpu.vcpu import Vcpu
from vmm.core.errors import VcpuThreadError
from vmm.core.outcome import OutcomeKind
from vmm.core.processor import Activity
from vmm.core.registerids import REGISTER_NAMES
from vmm.core.run.threadrun import SLICE
from vmm.core.vm import Vm
from vmm.engine.parallel import prepare_parallel
from vmm.machine import Machine, MachineDescription

if TYPE_CHECKING:
    from conftest import MakeGuest

START = """
	.set COUNTER, 0x200000
	.set LOCK, 0x200040
	.set PLAIN, 0x200080
	.set READY, 0x2000c0
	.set WIDE, 0x200103
	.set TAKEN, 0x200200
	.set APIC, 0xfee00000
ap_start:
	mov $KERNEL_DATA, %eax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	lidt idt_pointer
	mov $1, %ebx
	lock xaddl %ebx, READY
	mov %ebx, %esp
	shl $12, %esp
	add $0x180000, %esp
	movl $0x1ff, APIC + 0xf0
	jmp ap
interrupted:
	lock incl TAKEN
	movl $0, APIC + 0xb0
	iretl
"""
COUNTING = """
start:	PAGING
1:	pause
	cmpl $OTHERS, READY
	jne 1b
	call work
2:	pause
	cmpl $CPUS * ROUNDS, PLAIN
	jne 2b
	cmpl $CPUS * ROUNDS, COUNTER
	jne 3f
	cmpl $CPUS * ROUNDS / 100, WIDE
	jb 2b
	jne 3f
	FINISH 0
3:	FINISH 1
work:
	mov $ROUNDS, %ecx
	mov $100, %esi
4:	lock incl COUNTER
	dec %esi
	jnz 5f
	mov $100, %esi
	lock incl WIDE
5:	lock btsl $0, LOCK
	jnc 7f
6:	pause
	testl $1, LOCK
	jnz 6b
	jmp 5b
7:	mov PLAIN, %eax
	inc %eax
	mov %eax, PLAIN
	movl $0, LOCK
	dec %ecx
	jnz 4b
	ret
ap:	PAGING
	call work
8:	hlt
	jmp 8b
"""
BY_BTS = "5:	lock btsl $0, LOCK\n	jnc 7f\n"
BY_XCHG = "5:	mov $1, %eax\n	xchg %eax, LOCK\n	test %eax, %eax\n	jz 7f\n"
# Each CPU brings a token and exchanges it for what lies in the cell, and so on.
TOKENS = """
	.set CELL, 0x200140
	.set TOKENS, 0x200300
start:	PAGING
1:	pause
	cmpl $OTHERS, READY
	jne 1b
	mov $OTHERS, %ebx
	call work
2:	pause
	cmpl $CPUS, COUNTER
	jne 2b
	FINISH 0
work:	lea 1(%ebx), %edx
	mov $100000, %ecx
3:	EXCHANGE
	dec %ecx
	jnz 3b
	mov %edx, TOKENS(, %ebx, 4)
	lock incl COUNTER
	ret
ap:	PAGING
	call work
4:	hlt
	jmp 4b
"""
WAITING = """
start:	movl $0x1ff, APIC + 0xf0
ap:	sti
1:	hlt
	jmp 1b
"""
FORKING = """
start:	PAGING
1:	pause
	cmpl $OTHERS, READY
	jne 1b
	call work
2:	pause
	cmpl $CPUS, COUNTER
	jne 2b
	FINISH 0
bad:	FINISH 1
work:	mov $400, %ecx
	mov %esp, %ebx
	and $0x1f000, %ebx
	shr $10, %ebx			# an entry of this CPU's own
	add $TABLE + 0x900, %ebx
	mov %ebx, %edi
	sub $TABLE, %edi
	shl $10, %edi			# the page that it maps
	lea 0x100000(%edi), %esi	# a frame of its own
3:	mov %esi, %eax
	or $OPEN, %eax
	mov %eax, (%ebx)
	invlpg (%edi)
	mov %ecx, (%edi)
	cmp %ecx, (%edi)
	jne bad
	mov $0x3f0000 + OPEN, %eax
	mov %eax, (%ebx)
	invlpg (%edi)
	cmpl $0, (%edi)
	jne bad
	dec %ecx
	jnz 3b
	lock incl COUNTER
	ret
ap:	PAGING
	call work
4:	hlt
	jmp 4b
"""
PING_PONG = """
start:	PAGING
1:	cmpl $1, READY
	jne 1b
	mov $2000, %ecx
2:	mov %ecx, COUNTER
3:	cmp %ecx, PLAIN
	jne 3b
	dec %ecx
	jnz 2b
	FINISH 0
ap:	PAGING
	mov $2000, %ecx
4:	cmp %ecx, COUNTER
	jne 4b
	mov %ecx, PLAIN
	dec %ecx
	jnz 4b
	hlt
"""
ROUND_TRIPS = 2000
VECTOR = 0x41
NO_TIME = 300.0


@pytest.fixture(autouse=True)
def no_deadlock() -> Iterator[None]:
    """What hangs shows where, and ends."""
    faulthandler.dump_traceback_later(NO_TIME, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


Make = Callable[..., Machine]


@pytest.fixture
def parallel(tiny_guest: MakeGuest) -> Make:
    """A machine with threads, whose other CPUs are told to start."""

    def make(source: str, cpus: int, **about: Any) -> Machine:
        numbers = f"\t.set CPUS, {cpus}\n\t.set OTHERS, {cpus - 1}\n\t.set ROUNDS, 5000\n"
        guest = tiny_guest(numbers + START + source, handlers={VECTOR: "interrupted"})
        about.setdefault("max_instructions", 200_000_000)
        about.setdefault("threads", True)
        about.setdefault("apic", True)
        machine = Machine(MachineDescription(guest.data, memory=4 << 20, cpus=cpus, **about))
        machine.memory.load(TRAMPOLINE, trampoline(guest))
        for processor in machine.processors[1:]:
            processor.startup(TRAMPOLINE >> 12)
        return machine

    return make


def taken(machine: Machine) -> int:
    return int.from_bytes(machine.memory.read(0x200200, 4), "little")


def vcpu_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vcpu ")]


def test_the_engine_proves_that_it_can() -> None:
    prepare_parallel()


@pytest.mark.parametrize("cpus", [1, 2, 4, 8])
def test_locked_instructions_are_atomic(parallel: Make, cpus: int) -> None:
    """Aligned or not, and so are locks made of them."""
    machine = parallel(COUNTING, cpus)
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    assert min(share.instructions for share in run.vcpus) > 5000 * 8


@pytest.mark.parametrize("attempt", range(4))
def test_a_lock_of_xchg_holds(parallel: Make, attempt: int) -> None:
    source = COUNTING.replace(BY_BTS, BY_XCHG)
    assert source != COUNTING
    run = parallel(source, 3 + attempt % 2).run()
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome


@pytest.mark.parametrize("exchange", ["xchgb %dl, CELL", "xchgw %dx, CELL", "xchgl %edx, CELL"])
def test_no_token_is_lost_or_doubled(parallel: Make, exchange: str) -> None:
    """Each CPU brings one and exchanges it for what lies in a cell, over and over."""
    machine = parallel(TOKENS.replace("EXCHANGE", exchange), 4)
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    found = [machine.memory.read32(0x200300 + 4 * cpu) for cpu in range(4)]
    assert sorted([*found, machine.memory.read32(0x200140)]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("cpus", [2, 4])
def test_page_tables_are_changed_in_parallel(parallel: Make, cpus: int) -> None:
    run = parallel(FORKING, cpus).run()
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    assert run.ledger.total > cpus * 400 * 2


def test_guest_code_runs_in_parallel(parallel: Make) -> None:
    """Two CPUs answer each other two thousand times, with interrupts off and no PAUSE.

    CPUs that took turns would spin through a slice for each answer. On a busy host so may these,
    which is why there is more than one try.
    """
    assert any(
        parallel(PING_PONG, 2).run().instructions < 2 * ROUND_TRIPS * SLICE // 4 for _ in range(5)
    )


def test_each_cpu_belongs_to_its_own_thread(parallel: Make) -> None:
    machine = parallel(COUNTING, 2)
    rip = REGISTER_NAMES["rip"]
    with pytest.raises(
        VcpuThreadError, match="from thread 'MainThread': virtual CPU 1 belongs to thread 'vcpu 1'"
    ):
        machine.registers[1].get([rip])
    assert machine.vm.call(1, lambda: machine.registers[1].get([rip])) == {rip: 0}
    with pytest.raises(VcpuThreadError, match="from thread 'vcpu 0': virtual CPU 1 belongs"):
        machine.vm.call(0, lambda: machine.registers[1].get([rip]))
    machine.close()


def test_a_call_wakes_a_cpu_that_has_halted(parallel: Make) -> None:
    machine = parallel(WAITING, 3)
    seen: list[int] = []

    def act() -> None:
        for number in range(1, 61):
            machine.msi(0xFEE00000 | (number % 3) << 12, VECTOR)
            deadline = time.monotonic() + NO_TIME / 4
            while taken(machine) < number and time.monotonic() < deadline:
                threading.Event().wait(0.001)
            seen.append(taken(machine))
        machine.stop()

    actor = threading.Thread(target=act)

    def watch(_instructions: int) -> None:
        # Before its APIC is enabled a CPU refuses messages.
        asleep = all(cpu.activity is Activity.HALTED for cpu in machine.processors)
        if actor.ident is None and asleep:
            actor.start()

    run = machine.run(watch, waits=True)
    actor.join()
    assert run.outcome.kind is OutcomeKind.INTERRUPTED
    assert seen == list(range(1, 61))


def test_without_anything_to_wait_for_the_run_ends(parallel: Make) -> None:
    outcome = parallel(WAITING, 2).run().outcome
    assert outcome.kind is OutcomeKind.HALTED
    assert "nothing to wait for" in str(outcome)


def test_the_limit_holds_for_all_together(parallel: Make) -> None:
    run = parallel("start:\nap: jmp ap", 2, max_instructions=3_000_000).run()
    assert run.outcome.kind is OutcomeKind.LIMIT
    # A block that was counted and did not run is taken back.
    assert 2_990_000 <= run.instructions < 4_000_000


def test_an_error_ends_every_cpu(parallel: Make) -> None:
    run = parallel("start: jmp start\nap: movl $0, 0x0\n lidt 0x200000\n int $3", 2).run()
    assert run.outcome.kind is OutcomeKind.TRIPLE_FAULT
    assert vcpu_threads() == []


@pytest.mark.parametrize(("caller", "count"), [("", 20), ("_prepare", 8), ("_once", 2)])
def test_a_defect_in_the_middle_of_an_exit_is_raised_and_hangs_nobody(
    parallel: Make, monkeypatch: pytest.MonkeyPatch, caller: str, count: int
) -> None:
    """Anywhere, before a run, and where a CPU is to run alone: others stand still for these two."""
    switched, switch = 0, Vm._switch

    def defect(vm: Vm, vcpu: Vcpu, how: int) -> None:
        nonlocal switched
        # These lie between; compiled, they have no frames.
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name in {"take", "run_alone"}:
            frame = frame.f_back
        asked = frame.f_code.co_name if frame is not None else ""
        if not caller or (asked == caller and vm.crew is not None and vm.crew.gate.is_closed()):
            switched += 1
            if switched == count:
                raise RuntimeError("a defect")
        switch(vm, vcpu, how)

    monkeypatch.setattr(Vm, "_switch", defect)
    machine = parallel(COUNTING, 3)
    with pytest.raises(RuntimeError, match="a defect"):
        machine.run()
    assert vcpu_threads() == []


def test_who_works_in_the_core_may_have_the_others_stop(
    parallel: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a device does that posts something, whether its exit has stopped them already or not."""
    closed, found, switch = set(), [], Vm._switch

    def posting(vm: Vm, vcpu: Vcpu, how: int) -> None:
        switch(vm, vcpu, how)
        if vm.crew is not None and len(found) < 500:
            gate = vm.crew.gate
            closed.add(gate.is_closed())
            vm.post(lambda: found.append(gate.is_closed()))

    monkeypatch.setattr(Vm, "_switch", posting)
    run = parallel(COUNTING, 3).run()
    assert run.outcome.kind is OutcomeKind.PASSED
    assert closed == {False, True}
    assert found == [True] * 500


def test_calls_from_many_threads_while_eight_cpus_run(parallel: Make) -> None:
    machine = parallel("start: movl $0x1ff, APIC + 0xf0\nap: sti\n1: jmp 1b", 8)
    refused = []
    over = threading.Event()

    def hammer(seed: int) -> None:
        noise = random.Random(seed)  # noqa: S311 - nothing secret
        for _ in range(150):
            match noise.randrange(5):
                case 0:
                    machine.irq_line(5, high=noise.random() < 0.5)
                case 1 | 2:
                    machine.msi(0xFEE00000 | noise.randrange(8) << 12, VECTOR)
                case 3:
                    machine.so_far()
                    machine.ledger()
                case _:
                    try:
                        machine.registers[noise.randrange(8)].get([REGISTER_NAMES["rip"]])
                    except VcpuThreadError:
                        refused.append(seed)

    hammers = [threading.Thread(target=hammer, args=(seed,)) for seed in range(6)]

    def act() -> None:
        for thread in hammers:
            thread.start()
        for thread in hammers:
            thread.join()
        over.set()
        machine.stop()

    actor = threading.Thread(target=act)
    actor.start()
    run = machine.run()
    actor.join()
    assert over.is_set()
    assert run.outcome.kind is OutcomeKind.INTERRUPTED
    assert set(refused) == set(range(6))
    assert taken(machine) > 0
    assert vcpu_threads() == []


def test_two_hundred_starts_and_stops(parallel: Make) -> None:
    """No thread is left, and nothing hangs."""
    for number in range(200):
        machine = parallel("start:\nap: jmp ap", 1 + number % 4)
        if number % 4 == 3:
            machine.close()
            continue
        stopper = threading.Thread(target=machine.stop)
        stopper.start()
        assert machine.run().outcome.kind is OutcomeKind.INTERRUPTED
        stopper.join()
    assert vcpu_threads() == []
