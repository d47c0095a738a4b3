"""A machine that is saved and resumed in the middle ends with the counts of one that was not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apstart import TRAMPOLINE, trampoline
from bench.inputs import load_guest, load_rom
from vmm.core.errors import BadDescription
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import POLICIES, policy_named
from vmm.devices.disk import Writes
from vmm.devices.pluggable import Device, Plug
from vmm.filters import load_filter, shipped_filters
from vmm.machine import Machine, MachineDescription, Run

if TYPE_CHECKING:
    from conftest import MakeGuest

Make = Callable[[], Machine]


def differences(one: Run, other: Run) -> list[str]:
    """The names of all that is not equal; a run has counts, places, console and memory's CRC."""
    return [
        field.name
        for field in fields(Run)
        if getattr(one, field.name) != getattr(other, field.name)
    ]


def cut(make: Make, path: Path, **limits: int) -> tuple[Run, ...]:
    """The run that went on behind a save, and the one that was resumed.

    None for a guest that ended before anybody looked at the limit.
    """
    machine = make()
    if machine.proceed(**limits).kind is not OutcomeKind.LIMIT:
        machine.close()
        return ()
    size = machine.save(path)
    assert size == path.stat().st_size
    on = machine.run()
    resumed = Machine.resume(path)
    assert resumed.unknown == ()
    return on, resumed.run()


def check(make: Make, path: Path, cuts: int = 2) -> None:
    """Cut a run at some places by each kind of limit."""
    whole = make().run()
    assert whole.outcome.kind is OutcomeKind.PASSED, whole.outcome
    limits: list[dict[str, int]] = [
        {"exits": whole.ledger.total // 2},
        {"virtual_ns": whole.virtual_ns * 3 // 5},
    ]
    limits += [
        {"instructions": whole.instructions * (2 * i + 1) // (2 * cuts)} for i in range(cuts)
    ]
    for limit in limits:
        for run in cut(make, path, **limit):
            assert differences(whole, run) == [], limit


def maker(guest: str, rom: str, **about: Any) -> Make:
    chosen = load_guest(guest)
    about.setdefault("memory", 16 << 20)
    description = MachineDescription(
        chosen.image, load_rom(rom).image, disk=chosen.disk or None, **about
    )
    return lambda: Machine(description)


@pytest.mark.parametrize("policy", [policy.name for policy in POLICIES])
@pytest.mark.parametrize("rom", ["none", "identity", "batching"])
def test_policies_and_roms(rom: str, policy: str, tmp_path: Path) -> None:
    check(maker("forkstorm", rom, policy=policy_named(policy)), tmp_path / "saved", cuts=1)


@pytest.mark.parametrize("rom", ["none", "batching"])
@pytest.mark.parametrize("guest", ["ctxswitch", "mmapstorm", "pagefault", "portstorm", "probe"])
def test_guests(guest: str, rom: str, tmp_path: Path) -> None:
    check(maker(guest, rom), tmp_path / "saved")


@pytest.mark.parametrize(("guest", "rom"), [("idescan", "none"), ("ideread", "batching")])
def test_guests_that_use_a_disk(guest: str, rom: str, tmp_path: Path) -> None:
    """With the batching ROM it is the ROM that keeps the channel."""
    check(maker(guest, rom), tmp_path / "saved", cuts=4)


def test_a_local_apic_and_filters(tmp_path: Path) -> None:
    filters = tuple(load_filter(name) for name in shipped_filters())
    check(maker("iostorm", "batching", apic=True, filters=filters), tmp_path / "saved", cuts=1)


def test_the_checker_goes_on_counting(tmp_path: Path) -> None:
    check(maker("probe", "batching", check_shadow=True), tmp_path / "saved", cuts=1)


def test_an_ioapic_in_a_process_of_its_own(tmp_path: Path) -> None:
    check(maker("iostorm", "none", apic=True, ioapic_process=True), tmp_path / "saved", cuts=1)


def test_phases_go_on(tmp_path: Path) -> None:
    make = maker("forkstorm", "batching", marks=("VMI: Found", "ok"))
    assert len(make().run().phases) > 1
    check(make, tmp_path / "saved")


# Three levels of tables that the guest makes, changes, and invalidates page by page.
PAE = """
	.set ROOT, 0x200000
	.set DIRECTORY_OF_64, 0x201000
	.set TABLE_OF_64, 0x202000
	.set PLACE, 0x100000 + 0x180000
start:
	movl $DIRECTORY_OF_64 | 1, ROOT
	movl $TABLE_OF_64 | 7, DIRECTORY_OF_64
	movl $0x87 | 0x200000, DIRECTORY_OF_64 + 8
	xor %ecx, %ecx
1:	mov %ecx, %eax
	shl $12, %eax
	or $7, %eax
	mov %eax, TABLE_OF_64(, %ecx, 8)
	inc %ecx
	cmp $512, %ecx
	jne 1b
	mov %cr4, %eax
	or $0x30, %eax
	mov %eax, %cr4
	mov $ROOT, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $0x80010000, %eax
	mov %eax, %cr0
	mov $400, %esi
2:	mov %esi, %edi
	and $31, %edi
	add $0x180, %edi
	mov %edi, %eax
	shl $12, %eax
	mov %eax, %ebx
	xor $0x10000, %eax
	or $7, %eax
	mov %eax, TABLE_OF_64(, %edi, 8)
	test $3, %esi
	jz 3f
	invlpg (%ebx)
	jmp 4f
3:	mov %cr3, %eax
	mov %eax, %cr3
4:	incl (%ebx)
	dec %esi
	jnz 2b
	FINISH 0
"""


def test_where_the_last_x87_instruction_was(tiny_guest: MakeGuest, tmp_path: Path) -> None:
    """A kernel stores that with the rest when it switches tasks, long after."""
    body = """
    start:	PAGING
	mov %cr4, %eax
	or $0x200, %eax
	mov %eax, %cr4
	fninit
	fldpi
    1:	fstl FREE + 0x20
	mov $3000, %ecx
    2:	dec %ecx
	jnz 2b
	fnstenv FREE + 0x40
	fxsave FREE + 0x100
	cmpl $1b, FREE + 0x4c
	jne 3f
	cmpl $FREE + 0x20, FREE + 0x54
	jne 3f
	cmpl $1b, FREE + 0x108
	jne 3f
	FINISH 0
    3:	FINISH 1
    """
    about = MachineDescription(tiny_guest(body).data, memory=16 << 20)
    check(lambda: Machine(about), tmp_path / "saved", cuts=4)


@pytest.mark.parametrize("policy", ["svm-shadow", "svm-unsync", "vtx-shadow"])
def test_pae(
    policy: str,
    tiny_guest: MakeGuest,
    make_machine: Callable[..., Machine],
    tmp_path: Path,
) -> None:
    guest = tiny_guest(PAE)
    check(lambda: make_machine(guest, policy=policy_named(policy)), tmp_path / "saved", cuts=6)


# Each CPU counts under a lock.
SMP = """
	.set LOCK, 0x200040
	.set PLAIN, 0x200080
	.set READY, 0x2000c0
	.set ROUNDS, 300
ap_start:
	mov $KERNEL_DATA, %eax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $1, %ebx
	lock xaddl %ebx, READY
	mov %ebx, %esp
	shl $12, %esp
	add $0x180000, %esp
	PAGING
	call work
1:	hlt
	jmp 1b
start:
	PAGING
2:	pause
	cmpl $OTHERS, READY
	jne 2b
	call work
3:	pause
	cmpl $CPUS * ROUNDS, PLAIN
	jne 3b
	FINISH 0
work:
	mov $ROUNDS, %ecx
4:	lock btsl $0, LOCK
	jnc 6f
5:	pause
	testl $1, LOCK
	jnz 5b
	jmp 4b
6:	mov PLAIN, %eax
	inc %eax
	mov %eax, PLAIN
	movl $0, LOCK
	dec %ecx
	jnz 4b
	ret
"""


@pytest.mark.parametrize("cpus", [2, 4])
def test_several_cpus_in_turns(cpus: int, tiny_guest: MakeGuest, tmp_path: Path) -> None:
    guest = tiny_guest(f"\t.set CPUS, {cpus}\n\t.set OTHERS, {cpus - 1}\n{SMP}")

    def make() -> Machine:
        machine = Machine(MachineDescription(guest.data, memory=4 << 20, cpus=cpus))
        machine.memory.load(TRAMPOLINE, trampoline(guest))
        for processor in machine.processors[1:]:
            processor.startup(TRAMPOLINE >> 12)
        return machine

    check(make, tmp_path / "saved", cuts=3)


def test_a_fresh_process_goes_on(tmp_path: Path) -> None:
    make = maker("forkstorm", "batching")
    whole = make().run()
    path = tmp_path / "saved"
    machine = make()
    machine.proceed(instructions=whole.instructions // 2)
    machine.save(path)
    machine.close()
    code = (
        "import sys; from pathlib import Path; from vmm.machine import Machine; "
        "run = Machine.resume(Path(sys.argv[1])).run(); "
        "print(repr((run.ledger, run.instructions, run.memory_crc, run.console, run.calls)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    expected = (whole.ledger, whole.instructions, whole.memory_crc, whole.console, whole.calls)
    assert told.stdout.strip() == repr(expected)


def test_saved_in_a_chain(tmp_path: Path) -> None:
    """Saved, resumed, saved again: what does not show in one cut might in ten."""
    make = maker("ctxswitch", "batching", policy=policy_named("vtx-shadow"))
    whole = make().run()
    path = tmp_path / "saved"
    machine = make()
    for i in range(1, 10):
        machine.proceed(instructions=whole.instructions * i // 10)
        machine.save(path)
        machine.close()
        machine = Machine.resume(path)
    assert differences(whole, machine.run()) == []


def test_until_and_limits_are_places_to_save(tmp_path: Path) -> None:
    make = maker("forkstorm", "batching")
    whole = make().run()
    machine = maker("forkstorm", "batching", until="VMI: Found")()
    assert machine.proceed().kind is OutcomeKind.PASSED
    machine.save(tmp_path / "saved")
    machine.close()
    assert differences(whole, Machine.resume(tmp_path / "saved").run()) == []
    again = Machine.resume(tmp_path / "saved", max_instructions=whole.instructions // 2)
    assert again.run().outcome.kind is OutcomeKind.LIMIT


def test_a_guest_that_has_ended_is_not_saved(tmp_path: Path) -> None:
    machine = maker("probe", "none")()
    machine.run()
    with pytest.raises(BadDescription, match="has ended"):
        machine.save(tmp_path / "saved")
    assert not list(tmp_path.iterdir())


# ---- disks


def test_what_was_written_to_a_disk_is_kept(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(512 * 64))
    about = MachineDescription(load_guest("probe").image, disk=image)
    machine = Machine(about)
    drive = machine.pc.ide[0]._channel.drives[0]
    assert drive is not None
    drive.image.write_sector(7, b"7" * 512)
    machine.save(tmp_path / "saved")
    machine.close()
    moved = image.rename(tmp_path / "moved")
    with pytest.raises(BadDescription, match="No such file"):
        Machine.resume(tmp_path / "saved")
    resumed = Machine.resume(tmp_path / "saved", disk=moved)
    drive = resumed.pc.ide[0]._channel.drives[0]
    assert drive is not None
    assert drive.image.read_sector(7) == b"7" * 512
    resumed.close()
    moved.write_bytes(bytes(512 * 63) + b"x" * 512)
    with pytest.raises(BadDescription, match="not the one"):
        Machine.resume(tmp_path / "saved", disk=moved)
    other = maker("forkstorm", "none", memory=4 << 20)()
    other.save(tmp_path / "other")
    other.close()
    with pytest.raises(BadDescription, match="without a disk"):
        Machine.resume(tmp_path / "other", disk=moved)


def test_a_file_does_not_say_which_disk_is_written_to(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(512 * 64))
    about = MachineDescription(load_guest("probe").image, disk=image, disk_writes=Writes.THROUGH)
    machine = Machine(about)
    machine.save(tmp_path / "saved")
    machine.close()
    with pytest.raises(BadDescription, match="by name"):
        Machine.resume(tmp_path / "saved")
    Machine.resume(tmp_path / "saved", disk=image).close()


# ---- devices


class Ticker(Device):
    """Counts its own timer, and shows the count at a port."""

    ports = (range(0x510, 0x514),)

    def __init__(self, board: Any) -> None:
        super().__init__(board)
        self.count = 0
        self.due = 10_000
        board.at(self.due, self.tick)

    def tick(self) -> None:
        self.count += 1
        self.due += 10_000
        self.board.at(self.due, self.tick)

    def read(self, port: int, size: int) -> int:
        return self.count

    def save(self) -> dict[str, Any]:
        return {"count": self.count, "due": self.due}

    def load(self, state: Any) -> None:
        self.count, self.due = state["count"], state["due"]
        self.board.at(self.due, self.tick)


def test_plugged_in_devices(tmp_path: Path) -> None:
    plug = Plug(Ticker, name="ticker")
    make = maker("forkstorm", "none", devices=(plug,))
    whole = make().run()
    path = tmp_path / "saved"
    machine = make()
    machine.proceed(instructions=whole.instructions // 2)
    machine.save(path)
    machine.close()
    resumed = Machine.resume(path, devices=[plug])
    assert resumed.unknown == ()
    assert differences(whole, resumed.run()) == []
    ticker = resumed.devices["ticker"]
    assert isinstance(ticker, Ticker)
    assert ticker.count > 100
    without = Machine.resume(path)
    assert without.unknown == ("device ticker",)
    assert without.run().outcome.kind is OutcomeKind.PASSED
