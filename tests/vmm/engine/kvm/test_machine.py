"""The machine on KVM: the same guest, results, heavy exits and places as on the other engine."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vmm.engine.kvm.hostlimits as limits
from rombuilder.guest import build_guest
from rombuilder.rom import build_rom
from vmm.core.errors import BadDescription, EngineFailure
from vmm.core.event import Reason
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import policy_named
from vmm.engine.ability import Ability
from vmm.engine.kvm import processor
from vmm.engine.kvm.hostlimits import HostCannot
from vmm.engine.kvm.probe import probe
from vmm.engine.kvm.vcpu import supported_cpuid
from vmm.kvm_machine import KvmMachine
from vmm.machine import Machine, MachineDescription, Run

MakeGuest = Callable[..., Any]

UNPAGED = ["portstorm", "idescan"]
ROMS = [None, "identity", "batching"]
SHORT = "rounds=20"


def describe(name: str, flavour: str | None, **about: Any) -> MachineDescription:
    rom = None if flavour is None else build_rom(flavour).data
    about.setdefault("command_line", SHORT)
    return MachineDescription(build_guest(name).data, rom, seconds=60, **about)


def kvm_run(guest: Any, **about: Any) -> Run:
    about.setdefault("memory", 4 << 20)
    about.setdefault("seconds", 30)
    return KvmMachine(MachineDescription(guest.data, **about)).run()


def heavy(run: Run) -> dict[str, int]:
    return {reason.value: row.heavy for reason, row in run.ledger.by_reason.items() if row.heavy}


def heavy_places(run: Run) -> dict[tuple[str, str, int], int]:
    return {
        (place.reason.value, place.detail, place.eip): place.count
        for place in run.ledger.places
        if place.reason in {Reason.IO, Reason.MMIO}
    }


@pytest.mark.parametrize("flavour", ROMS)
@pytest.mark.parametrize("name", UNPAGED)
def test_both_engines_agree(name: str, flavour: str | None, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(i * i >> 3 & 0xFF for i in range(16 << 10)))
    about = describe(name, flavour, disk=disk)
    first, second = Machine(about).run(), KvmMachine(about).run()
    assert second.outcome.kind is OutcomeKind.PASSED
    assert first.outcome == second.outcome
    assert first.console == second.console
    assert heavy(first) == heavy(second)
    assert heavy_places(first) == heavy_places(second)
    assert heavy(second)["io"] > 400
    # A ROM is told of more features on the other engine.
    assert flavour == "batching" or first.memory_crc == second.memory_crc


@pytest.mark.parametrize("name", UNPAGED)
def test_a_rom_that_is_granted_the_same_rings_the_same(name: str) -> None:
    first = Machine(describe(name, "batching", policy=policy_named("npt"))).run()
    second = KvmMachine(describe(name, "batching")).run()
    reasons = (Reason.IO, Reason.HYPERCALL)
    assert [first.ledger.by_reason[reason] for reason in reasons] == [
        second.ledger.by_reason[reason] for reason in reasons
    ]


def test_a_local_apic_in_the_kernel_changes_no_port_exit() -> None:
    if not ability("split_irqchip"):
        pytest.skip("no split irqchip here")
    plain = KvmMachine(describe("portstorm", "batching")).run()
    split = KvmMachine(describe("portstorm", "batching", apic=True)).run()
    assert split.outcome.kind is OutcomeKind.PASSED
    assert heavy_places(plain) == heavy_places(split)


def test_exits_are_labelled_as_this_engines() -> None:
    run = KvmMachine(describe("portstorm", None)).run()
    assert (run.engine, run.policy.name, run.counts_instructions) == ("kvm", "kvm", False)
    assert run.ledger.engine_events["kvm_exit_io"] == run.ledger.by_reason[Reason.IO].count
    assert run.registers["eip"] > 0x100000
    assert run.latest[-1].detail == "out port 0x0501 size 4"


def test_two_runs_count_the_same() -> None:
    about = describe("portstorm", "batching")
    runs = [KvmMachine(about).run() for _ in range(2)]
    assert runs[0].ledger.by_reason == runs[1].ledger.by_reason
    assert runs[0].ledger.places == runs[1].ledger.places


STRINGS = """
start:
	mov $data, %esi
	mov $0x2e8, %edx
	mov $5, %ecx
	cld
	rep outsb
	mov $2, %ecx
	rep outsl
	mov $FREE, %edi
	mov $3, %ecx
	rep insw
	cmpl $-1, FREE
	jne bad
	outsw
	FINISH 0
bad:	FINISH 1
data:	.ascii "some text that goes out"
"""


def test_a_string_instruction_is_one_access_an_element(tiny_guest: MakeGuest) -> None:
    guest = tiny_guest(STRINGS)
    first = Machine(MachineDescription(guest.data, memory=4 << 20)).run()
    second = kvm_run(guest)
    assert second.outcome.kind is OutcomeKind.PASSED
    assert heavy(first) == heavy(second) == {"io": 5 + 2 + 3 + 1 + 1}
    assert heavy_places(first) == heavy_places(second)


MEMORY = """
start:
	mov 0xa0000, %eax
	cmp $-1, %eax
	jne bad
	movl $5, 0xb8000
	movb $1, 0xf0000			# the BIOS area is a ROM
	mov 0x80000000, %ebx
	cmp $-1, %ebx
	jne bad
	FINISH 0
bad:	FINISH 1
"""


def test_no_memory_and_roms(tiny_guest: MakeGuest) -> None:
    guest = tiny_guest(MEMORY)
    first = Machine(MachineDescription(guest.data, memory=4 << 20)).run()
    second = kvm_run(guest)
    assert second.outcome.kind is OutcomeKind.PASSED
    assert heavy(first) == heavy(second) == {"mmio": 4, "io": 1}
    assert first.memory_crc == second.memory_crc


TIMER = """
start:
	mov $0x11, %al
	outb %al, $0x20
	mov $0x20, %al
	outb %al, $0x21
	mov $4, %al
	outb %al, $0x21
	mov $1, %al
	outb %al, $0x21
	mov $0xfe, %al
	outb %al, $0x21
	mov $0x34, %al
	outb %al, $0x43
	mov $0xa9, %al				# 100 Hz
	outb %al, $0x40
	mov $0x2e, %al
	outb %al, $0x40
	sti
1:	WAIT
	cmpl $50, ticks
	jb 1b
	FINISH 0
tick:
	push %eax
	incl ticks
	mov $0x20, %al
	outb %al, $0x20
	pop %eax
	iretl
	.balign 4
ticks:	.long 0
"""


def test_halts_are_not_waited_with(tiny_guest: MakeGuest) -> None:
    if not ability("unpaged_interrupts"):
        pytest.skip("KVM has no IRET in unpaged 32-bit mode here")
    guest = tiny_guest(TIMER.replace("WAIT", "hlt"), handlers={0x20: "tick"})
    start = time.monotonic()
    run = kvm_run(guest)
    assert run.outcome.kind is OutcomeKind.PASSED
    assert run.ledger.by_reason[Reason.HLT].count == pytest.approx(50, abs=5)
    assert run.virtual_ns > 480_000_000
    assert time.monotonic() - start < run.virtual_ns / 1e9 + 5


def test_a_guest_that_spins_is_interrupted_in_time(tiny_guest: MakeGuest) -> None:
    if not ability("unpaged_interrupts"):
        pytest.skip("KVM has no IRET in unpaged 32-bit mode here")
    guest = tiny_guest(TIMER.replace("WAIT", "nop"), handlers={0x20: "tick"})
    run = kvm_run(guest)
    assert run.outcome.kind is OutcomeKind.PASSED
    assert Reason.HLT not in run.ledger.by_reason
    assert run.ledger.by_reason[Reason.INTERRUPT].count == pytest.approx(50, abs=10)
    assert run.virtual_ns > 480_000_000


def test_interrupts_wait_for_their_window(tiny_guest: MakeGuest) -> None:
    if not ability("unpaged_interrupts"):
        pytest.skip("KVM has no IRET in unpaged 32-bit mode here")
    source = TIMER.replace(
        "sti\n1:	WAIT", "1:	cli\n	mov $0x8000, %ecx\n2:	loop 2b\n	sti\n	nop"
    )
    run = kvm_run(tiny_guest(source, handlers={0x20: "tick"}))
    assert run.outcome.kind is OutcomeKind.PASSED
    assert run.ledger.by_reason[Reason.INTERRUPT_WINDOW].count > 10


@pytest.mark.parametrize(
    ("source", "kind", "detail"),
    [
        ("cli\n hlt", OutcomeKind.HALTED, "HLT with interrupts off at 0x00100"),
        ("sti\n hlt", OutcomeKind.HALTED, "HLT with nothing to wait for at 0x00100"),
        ("lidt none\n ud2\nnone: .long 0, 0", OutcomeKind.TRIPLE_FAULT, "KVM_EXIT_SHUTDOWN"),
        ("ud2", OutcomeKind.FAILED, "the guest's check 262 failed"),
        ("jmp start", OutcomeKind.LIMIT, "0.3 seconds have passed"),
    ],
)
def test_ends(tiny_guest: MakeGuest, source: str, kind: OutcomeKind, detail: str) -> None:
    run = kvm_run(tiny_guest(f"start:\n{source}\n"), seconds=0.3)
    assert run.outcome.kind is kind
    assert detail in run.outcome.detail


def test_ctrl_c_keeps_the_counts(tiny_guest: MakeGuest) -> None:
    guest = tiny_guest("start: outb %al, $0x80\n 1: jmp 1b")

    def interrupt(_instructions: int) -> None:
        if time.monotonic() > start + 0.2:
            raise KeyboardInterrupt

    start = time.monotonic()
    run = KvmMachine(MachineDescription(guest.data, memory=4 << 20)).run(interrupt)
    assert run.outcome.kind is OutcomeKind.INTERRUPTED
    assert heavy(run) == {"io": 1}


def test_a_machine_runs_in_the_thread_that_made_it(tiny_guest: MakeGuest) -> None:
    guest = tiny_guest("start: FINISH 0")
    about = MachineDescription(guest.data, memory=4 << 20)
    here = KvmMachine(about)
    seen: list[object] = []

    def elsewhere() -> None:
        try:
            here.run()
        except EngineFailure as failure:
            seen.append(failure)
        seen.append(KvmMachine(about).run().outcome.kind)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "belongs to the thread that created it" in str(seen[0])
    assert seen[1] is OutcomeKind.PASSED


# ---- page tables traced by read-only slots; long mode is the paging that most hosts have

LONG_MODE = """
	.set PML4, FREE
	.set LEVEL3, FREE + 0x1000
	.set LEVEL2, FREE + 0x2000
	.set LEVEL1, FREE + 0x3000
start:
	movl $LEVEL3 + 0x63, PML4
	movl $LEVEL2 + 0x63, LEVEL3
	movl $LEVEL1 + 0x63, LEVEL2
	movl $0x2000e3, LEVEL2 + 8			# 2 to 4 MiB
	mov $LEVEL1, %edi
	mov $0x63, %eax
1:	mov %eax, (%edi)
	add $8, %edi
	add $0x1000, %eax
	cmp $LEVEL1 + 0x1000, %edi
	jb 1b
	mov $PML4, %eax
	mov %eax, %cr3
	mov %cr4, %eax
	or $0x20, %eax
	mov %eax, %cr4
	mov $0xc0000080, %ecx
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80000000, %eax
	mov %eax, %cr0
	outb %al, $0x80				# paged now: who traces, starts here
	movl $0x1234, 0x50000
	movl $0x50063, LEVEL1 + 8 * 0x60	# 0x60000 leads to 0x50000
	invlpg 0x60000
	cmpl $0x1234, 0x60000
	jne bad
	movl $0x60063, LEVEL1 + 8 * 0x60
	FINISH 0
bad:	FINISH 1
"""
LEVEL1 = 0x203000


def test_stores_to_a_traced_table_exit_and_take_effect(
    tiny_guest: MakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not ability("long_mode"):
        pytest.skip("KVM does not page in long mode here")
    monkeypatch.setattr(processor, "_cpuid_rows", lambda kvm, **_: supported_cpuid(kvm))
    machine = KvmMachine(MachineDescription(tiny_guest(LONG_MODE).data, memory=4 << 20))
    serve = machine.processor.serve

    def trace_from_the_first_port(reason: int) -> None:
        serve(reason)
        machine.processor.trace([LEVEL1 >> 12])

    monkeypatch.setattr(machine.processor, "serve", trace_from_the_first_port)
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED
    traced = [place for place in run.ledger.places if place.reason is Reason.PTE_WRITE]
    assert [place.count for place in traced] == [1, 1]
    assert {place.detail for place in traced} == {f"table {LEVEL1:#010x}"}
    assert run.ledger.by_reason[Reason.PTE_WRITE].light == 2


def ability(name: str) -> bool:
    return next(each for each in probe() if each.name == name).available


# ---- what this engine or this host cannot do


def test_a_host_that_cannot_page_says_so(
    tiny_guest: MakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ability("paging_32"):
        pytest.skip("KVM pages in 32-bit mode here")
    with pytest.raises(HostCannot, match=r"needs 32-bit paging, .* KVM on this host cannot do"):
        kvm_run(tiny_guest("start: lidt none\n PAGING\n FINISH 0\nnone: .long 0, 0"))


def test_a_guest_that_catches_the_fault_gets_a_hint(tiny_guest: MakeGuest) -> None:
    if ability("paging_32"):
        pytest.skip("KVM pages in 32-bit mode here")
    run = kvm_run(tiny_guest("start: PAGING\n FINISH 0"))
    assert run.outcome.kind is OutcomeKind.FAILED
    assert "paging_32, " in run.complaints[-1]


@pytest.mark.parametrize("flavour", ROMS)
def test_paged_guests_run_where_the_host_pages(flavour: str | None) -> None:
    if not ability("paging_32"):
        pytest.skip(f"this host's KVM: {next(a for a in probe() if a.name == 'paging_32').detail}")
    about = describe("forkstorm", flavour, command_line="rounds=4")
    first, second = Machine(about).run(), KvmMachine(about).run()
    assert (first.outcome, first.console) == (second.outcome, second.console)
    assert heavy(first).get("io") == heavy(second).get("io")


@pytest.mark.parametrize("lacks", ["unpaged_32", "read_only_slots", "real_mode"])
def test_what_a_host_lacks_is_told_before_anything_runs(
    lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Ability(each.name, available=each.name != lacks, detail="planted") for each in probe()]
    monkeypatch.setattr(limits, "probe", lambda: found)
    with pytest.raises(HostCannot, match=r"KVM on this host cannot do \(planted\)"):
        KvmMachine(describe("portstorm", "batching"))


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"policy": policy_named("npt")}, "policy 'npt': engine kvm runs on this host's processor"),
        ({"max_instructions": 5}, "a limit of 5 instructions: engine kvm counts none"),
        ({"check_shadow": True}, "there is no shadow to check"),
        ({"memory": 5}, "memory of 5 bytes: expected whole pages"),
        ({"disk": Path("/nowhere/disk")}, "disk '/nowhere/disk': No such file"),
    ],
)
def test_what_only_the_other_engine_does(about: dict[str, Any], message: str) -> None:
    with pytest.raises(BadDescription, match=message):
        KvmMachine(describe("portstorm", None, **about))


def test_the_doorbell_refuses_in_words(tiny_guest: MakeGuest) -> None:
    run = kvm_run(
        tiny_guest(
            "start: RING 1, 0\n test %eax, %eax\n jnz bad\n RING 0, 0x100000\n test %eax, %eax\n"
            " jnz bad\n RING 77, 0\n FINISH 0\n bad: FINISH 1"
        )
    )
    assert run.outcome.kind is OutcomeKind.PASSED
    assert run.ledger.by_reason[Reason.HYPERCALL].light == 3
    assert "doorbell function FLUSH" in run.complaints[0]
    assert "ATTACH" in run.complaints[1]
    assert "outside the ROM image" in run.complaints[1]
    assert "doorbell function 77" in run.complaints[2]


def test_a_thousand_machines_leave_nothing_behind(
    tiny_guest: MakeGuest, descriptors: Callable[[], int]
) -> None:
    guest = tiny_guest("start: FINISH 0")
    about = MachineDescription(guest.data, memory=4 << 20)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096

    for _ in range(20):
        KvmMachine(about).run()
    gc.collect()
    before, memory = descriptors(), resident()
    for i in range(1000):
        machine = KvmMachine(about)
        if i % 50 == 0:
            # How many wait for the collector at a time is no matter here.
            gc.collect()
        if i % 10 == 0:
            machine.run()
        else:
            machine.close()
    del machine
    gc.collect()
    assert descriptors() == before
    assert resident() < memory + (16 << 20)
