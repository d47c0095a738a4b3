"""The guest's clock: alarms on virtual time, what is published, and both from a guest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rombuilder.rom import build_rom
from vmi.clock import AlarmRequest, CycleCounter, Wiring
from vmi.doorbell import Doorbell, Feature
from vmm.core.event import Reason
from vmm.core.memory import GuestMemory
from vmm.core.outcome import OutcomeKind
from vmm.core.paravirt.clock import LEAST_PERIOD, GuestClock
from vmm.core.timers import NEVER, Timers
from vmm.machine import Machine, Run

REAL, AVAILABLE = CycleCounter.REAL, CycleCounter.AVAILABLE


class Bench:
    """A clock on a hand-turned time; `rings` are the times at which an alarm went off."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self.timers = Timers()
        self.rings: list[int] = []
        self.clock = GuestClock(self.timers, lambda: self.now, 0, GuestMemory(bytearray(4096)))
        self.clock.wire(Wiring.IRQ0, lambda: self.rings.append(self.now))

    def set(self, expiry: int, period: int | None = None, counter: CycleCounter = REAL) -> None:
        self.clock.set(AlarmRequest(counter, Wiring.IRQ0, expiry, period is not None, period or 0))

    def advance(self, to: int) -> None:
        while self.timers.next_due() <= to:
            self.now = max(self.now, self.timers.next_due())
            self.timers.run_due(self.now)
        self.now = to


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_alarm_goes_off_once(bench: Bench) -> None:
    bench.set(1_500_000)
    assert set(bench.clock.armed) == {REAL}
    bench.advance(9_000_000)
    assert bench.rings == [1_500_000]
    assert not bench.clock.armed
    assert bench.clock.cancel(REAL) is False


def test_an_alarm_that_is_due_goes_off_at_once(bench: Bench) -> None:
    bench.set(1)
    assert bench.timers.next_due() == bench.now
    bench.advance(bench.now)
    assert bench.rings == [1_000_000]


def test_a_periodic_alarm_keeps_its_beat(bench: Bench) -> None:
    bench.set(1_100_000, 500_000)
    bench.advance(3_000_000)
    assert bench.rings == [1_100_000, 1_600_000, 2_100_000, 2_600_000]
    assert bench.clock.cancel(REAL)
    bench.advance(9_000_000)
    assert len(bench.rings) == 4


def test_a_periodic_alarm_from_the_past_rings_once_for_all_that_was_missed(bench: Bench) -> None:
    bench.set(100, 300_000)
    bench.advance(1_500_000)
    assert bench.rings == [1_000_000, 1_200_100]
    assert bench.clock.armed[REAL].expiry == 1_500_100


def test_a_new_alarm_replaces_the_old_one_of_its_counter(bench: Bench) -> None:
    bench.set(1_100_000)
    bench.set(1_300_000)
    bench.set(1_200_000, counter=AVAILABLE)
    bench.advance(2_000_000)
    assert bench.rings == [1_200_000, 1_300_000]


def test_the_counter_wraps(bench: Bench) -> None:
    bench.now = (1 << 64) - 1000
    bench.set(500)
    assert bench.clock.armed[REAL].expiry == (1 << 64) + 500
    assert bench.timers.next_due() == NEVER, "no virtual time gets there"
    bench.now = 100
    bench.set((1 << 64) - 1)
    bench.advance(100)
    assert bench.rings == [100], "a moment ago, on the other side of the wrap"


@given(now=st.integers(0, (1 << 63) - 1), expiry=st.integers(0, (1 << 64) - 1))
def test_due_is_the_nearer_side(now: int, expiry: int) -> None:
    bench = Bench()
    bench.now = now
    bench.set(expiry)
    due = bench.clock.armed[REAL].expiry
    assert (due - expiry) % (1 << 64) == 0
    assert -(1 << 63) <= due - now < 1 << 63
    assert bench.timers.next_due() >= now


@pytest.mark.parametrize("period", [0, 1, LEAST_PERIOD - 1])
def test_periods_that_leave_no_time_are_refused(bench: Bench, period: int) -> None:
    bench.set(2_000_000)
    with pytest.raises(ValueError, match=f"alarm period of {period} cycles"):
        bench.set(1_500_000, period)
    assert bench.clock.armed[REAL].expiry == 2_000_000, "nothing has changed"


def test_a_wiring_that_nobody_serves_is_refused_until_somebody_does(bench: Bench) -> None:
    request = AlarmRequest(REAL, Wiring.LVTT, 1_200_000)
    with pytest.raises(ValueError, match="nothing here serves alarms wired to LVTT"):
        bench.clock.set(request)
    bench.clock.wire(Wiring.LVTT, lambda: bench.rings.append(-1))
    bench.clock.set(request)
    bench.advance(2_000_000)
    assert bench.rings == [-1]


# ---- from a guest, through the ROM

PRELUDE = """
	.set ROM, 0xc0000
	.set TICKS, 0x106000

	.macro SET_ALARM flags, ahead, period=0, high=0	# relative to now
	xor %eax, %eax
	CALL CALL_GetCycleCounter
	add $\\ahead, %eax
	adc $\\high, %edx
	mov %edx, %ecx
	mov %eax, %edx
	push $0
	push $\\period
	mov $\\flags, %eax
	CALL CALL_SetAlarm
	add $8, %esp
	.endm

	.macro CALL number			# the stack is the callee's; EBX is spent
	mov %eax, saved
	mov %edx, saved + 4
	mov %ecx, saved + 8
	mov $\\number, %eax
	mov $ROM + VMI_GET_RELOC_OFFSET, %ebx
	call *%ebx
	cmp $RELOC_CALL_REL, %dl
	jne absent
	mov %eax, %ebx
	mov saved, %eax
	mov saved + 4, %edx
	mov saved + 8, %ecx
	call *%ebx
	.endm

	.macro PIC				# vector 0x30 for IRQ 0, all others masked
	mov $0x11, %al
	outb %al, $0x20
	mov $0x30, %al
	outb %al, $0x21
	mov $4, %al
	outb %al, $0x21
	mov $1, %al
	outb %al, $0x21
	mov $0xfe, %al
	outb %al, $0x21
	.endm

start:
	mov $ROM + VMI_INIT_OFFSET, %ebx
	call *%ebx
	PIC
	jmp main
absent:
	FINISH 0x40
irq:
	push %eax
	incl TICKS
	mov $0x20, %al
	outb %al, $0x20
	pop %eax
	iretl
	.balign 4
saved:
	.long 0, 0, 0
main:
"""

FINISH = "\n\tFINISH 0\n"


@pytest.fixture
def timed(tiny_guest, make_machine) -> Callable[..., tuple[Machine, Run]]:
    """Run a source behind the prelude; its timer interrupts count in TICKS."""

    def run(source: str, *, rom: bytes | None = None) -> tuple[Machine, Run]:
        guest = tiny_guest(PRELUDE + source, handlers={0x30: "irq"})
        # Gates open to ring 3 are interrupt gates all the same.
        machine = make_machine(guest, rom=rom or build_rom().data)
        return machine, machine.run()

    return run


def ticks(machine: Machine) -> int:
    return int.from_bytes(machine.ram[0x106000:0x106004], "little")


def test_one_alarm_wakes_a_halted_guest(timed) -> None:
    machine, run = timed("SET_ALARM 0, 5000000\n sti\n hlt\n cli" + FINISH)
    assert run.outcome.kind is OutcomeKind.PASSED, run
    assert ticks(machine) == 1
    assert machine.vcpu.meter.now() > 5_000_000
    rows = run.ledger.by_reason
    assert rows[Reason.HYPERCALL].count == 2, "ATTACH and SET_ALARM"
    assert run.complaints == ()


def test_a_periodic_alarm_ticks_until_it_is_cancelled(timed) -> None:
    machine, run = timed(
        """
	SET_ALARM 0x100, 1000000, 1000000
	sti
1:	hlt
	cmpl $5, TICKS
	jb 1b
	mov $0x100, %eax
	CALL CALL_CancelAlarm
	cmp $1, %eax
	jne absent
	mov $0x100, %eax
	CALL CALL_CancelAlarm
	test %eax, %eax
	jnz absent
	SET_ALARM 0x1, 10000000		# the other counter's alarm, later
	hlt
	cli
"""
        + FINISH
    )
    assert run.outcome.kind is OutcomeKind.PASSED, run
    assert ticks(machine) == 6
    assert 15_000_000 < machine.vcpu.meter.now() < 17_000_000


def test_cancelled_while_its_interrupt_is_on_its_way(timed) -> None:
    """The request is in the PIC by then and still comes, once."""
    machine, run = timed(
        """
	cli
	SET_ALARM 0, 0
	mov $100000, %ecx
1:	dec %ecx
	jnz 1b
	xor %eax, %eax
	CALL CALL_CancelAlarm
	test %eax, %eax
	jnz absent
	sti
	nop
	nop
	cli
"""
        + FINISH
    )
    assert run.outcome.kind is OutcomeKind.PASSED, run
    assert ticks(machine) == 1


def test_an_expiry_long_past_comes_at_once(timed) -> None:
    machine, run = timed("SET_ALARM 0, -100000000, 0, -1\n sti\n hlt\n cli" + FINISH)
    assert run.outcome.kind is OutcomeKind.PASSED, run
    assert ticks(machine) == 1
    assert machine.vcpu.meter.now() < 1_000_000


def test_the_wall_clock_is_the_real_time_clocks(timed) -> None:
    machine, run = timed(
        "CALL CALL_GetWallclockTime\n mov %eax, TICKS + 4\n mov %edx, TICKS + 8\n"
        "CALL CALL_WallclockUpdated\n mov %eax, TICKS + 12\n" + FINISH
    )
    assert run.outcome.kind is OutcomeKind.PASSED, run
    ns = int.from_bytes(machine.ram[0x106004:0x10600C], "little")
    start = int(datetime(2008, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
    assert 0 <= ns - start <= machine.vcpu.meter.now()
    assert machine.ram[0x10600C] == 0


def test_a_wall_clock_that_is_set_reaches_the_guest(timed) -> None:
    source = "CALL CALL_WallclockUpdated\n" * 2 + FINISH
    machine, _ = timed(source)
    clock = machine.vcpu.doorbell.clock
    clock.set_wallclock(5 << 32 | 6)
    header, _ = machine.vcpu.queue.location()
    words = memoryview(machine.ram).cast("I")
    assert words[(header + 0x20) // 4 : (header + 0x38) // 4].tolist() == [
        *(6, 5),
        *(0x80000000, 1),
        *(1, 1),
    ]
    words.release()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((0x10000, 0, 0, 0, 0), "nothing here serves alarms wired to LVTT"),
        ((0x102, 0, 0, 0, 0), "no alarm goes by counter 2"),
        ((0x100, 0, 0, 0, 0), "alarm period of 0 cycles"),
        ((0x80000000, 0, 0, 0, 0), "bits 0x80000000 mean nothing"),
    ],
)
def test_nonsense_is_refused_in_the_report(timed, words, complaint: str) -> None:
    values = ", ".join(str(word) for word in words)
    _, run = timed(
        f"RING DOORBELL_SET_ALARM, words\n test %eax, %eax\n jnz absent\n jmp 9f\n"
        f"\t.balign 4\nwords: .long {values}\n9:" + FINISH
    )
    assert run.outcome.kind is OutcomeKind.PASSED, run
    assert len(run.complaints) == 1
    assert complaint in run.complaints[0]
    assert "doorbell SET_ALARM at 0x" in run.complaints[0]


@pytest.mark.parametrize("address", [1, 0xFFFFFFFC, 0x80000000])
def test_addresses_that_hold_no_words(timed, address: int) -> None:
    """Outside memory the bus reads all ones, which are no flags."""
    _, run = timed(f"RING DOORBELL_SET_ALARM, {address:#x}\n test %eax, %eax\n jnz absent" + FINISH)
    assert run.outcome.kind is OutcomeKind.PASSED, run
    assert len(run.complaints) == 1


def test_an_alarm_arrives_at_the_local_apics_timer_entry(tiny_guest, make_machine) -> None:
    """Where there is a local APIC; masked, it is lost, as the APIC's own timer is."""
    source = PRELUDE.replace("outb %al, $0x20\n\tpop", "nop\n\tpop") + """
	PAGING
	movl $0xfee00000 | OPEN, TABLE + 0x800
	movl $0x1ff, 0x2000f0
	movl $0x10041, 0x200320
	SET_ALARM 0x10000, 0
	mov $10000, %ecx
1:	dec %ecx
	jnz 1b
	movl $0x41, 0x200320
	SET_ALARM 0x10000, 1000000
	sti
	hlt
	cli
""" + FINISH  # fmt: skip
    guest = tiny_guest(source, handlers={0x41: "irq"})
    machine = make_machine(guest, rom=build_rom().data, apic=True)
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED, run
    assert ticks(machine) == 1
    assert run.complaints == ()


def test_an_alarm_for_the_end_of_time_never_comes(timed) -> None:
    _, run = timed(
        "RING DOORBELL_SET_ALARM, words\n sti\n hlt\n\t.balign 4\n"
        "words: .long 0, 0xffffffff, 0x7fffffff, 0, 0\n" + FINISH
    )
    assert run.outcome.kind is OutcomeKind.HALTED
    assert "nothing to wait for" in run.outcome.detail


def test_the_shortest_period_leaves_the_guest_time_to_go_on(timed) -> None:
    _, run = timed(
        f"SET_ALARM 0x100, 0, {LEAST_PERIOD}\n sti\n mov $20000, %ecx\n1: dec %ecx\n jnz 1b\n cli"
        + FINISH
    )
    assert run.outcome.kind is OutcomeKind.PASSED, run


def test_without_a_clock_there_are_no_timer_calls(tiny_guest, make_machine) -> None:
    guest = tiny_guest(PRELUDE + "CALL CALL_GetCycleFrequency" + FINISH, handlers={0x30: "irq"})
    machine = make_machine(guest, rom=build_rom().data)
    machine.vcpu.queue.offered &= ~Feature.CLOCK
    assert machine.run().outcome.kind is not OutcomeKind.PASSED
    rings = [Doorbell(function) for function in (Doorbell.SET_ALARM, Doorbell.CANCEL_ALARM)]
    assert rings == [8, 9]


def test_equal_runs(timed) -> None:
    ticking = "SET_ALARM 0x100, 1000000, 700000\n sti\n1: hlt\n cmpl $9, TICKS\n jb 1b\n cli"
    source = ticking + FINISH
    first, second = timed(source)[1], timed(source)[1]
    assert first == second


def test_the_time_is_that_of_the_cpu_that_runs(tiny_guest, make_machine) -> None:
    """Periods that have passed unseen are left out, also while the first CPU stands still."""
    machine = make_machine(tiny_guest("start:\n hlt\n"), cpus=2)
    other = machine.vm.vcpus[1]
    machine.vm.switch_to(other)
    clock = other.doorbell.clock
    rings: list[int] = []
    clock.wire(Wiring.LVTT, lambda: rings.append(machine.vm.now()))
    clock.set(AlarmRequest(REAL, Wiring.LVTT, 1_000_000, periodic=True, period=1_000_000))
    other.meter.charged_ns += 5_500_000
    machine.timers.run_due(machine.vm.now())
    assert rings == [5_500_000]
    assert clock.armed[REAL].expiry == 6_000_000
