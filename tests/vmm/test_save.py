"""A machine that is saved and resumed in the middle ends with the counts of one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
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
from vmm.savedfile import VERSION

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
    with pytest.raises(BadDescription, match="without a disk"):
        Machine.resume(_saved(tmp_path / "other"), disk=moved)


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


# ---- files that are not what they should be


def _saved(path: Path) -> Path:
    machine = maker("forkstorm", "batching", memory=4 << 20)()
    machine.proceed(instructions=1_000_000)
    machine.save(path)
    machine.close()
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _saved(tmp_path_factory.mktemp("saved") / "machine").read_bytes()


def refused(path: Path, text: str) -> None:
    with pytest.raises(BadDescription, match=text) as caught:
        Machine.resume(path)
    assert str(path) in str(caught.value)


def test_a_truncated_file(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "machine"
    for size in (0, 1, len(saved) // 2, len(saved) - 1):
        path.write_bytes(saved[:size])
        refused(path, "truncated")


def test_a_damaged_file(saved: bytes, tmp_path: Path) -> None:
    """A byte anywhere: the CRC of an entry, or the directory, tells."""
    path = tmp_path / "machine"
    for at in range(60, len(saved) - 60, len(saved) // 40):
        damaged = bytearray(saved)
        damaged[at] ^= 0x5A
        path.write_bytes(damaged)
        with suppress(BadDescription):
            # A byte that nobody reads: a time, a comment.
            Machine.resume(path).close()


def test_another_file(tmp_path: Path) -> None:
    path = tmp_path / "machine"
    path.write_text("{}")
    refused(path, "truncated, or no saved machine")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "not this one")
    refused(path, "no saved machine")
    refused(tmp_path / "absent", "No such file")
    refused(tmp_path, "directory")


def rewritten(saved: bytes, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The file with another `machine.json`."""
    path.write_bytes(saved)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    head = json.loads(entries["machine.json"])
    change(head)
    entries["machine.json"] = json.dumps(head).encode()
    _write(path, entries)
    return path


def _write(path: Path, entries: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_a_file_of_another_version(saved: bytes, tmp_path: Path, version: int) -> None:
    path = rewritten(saved, tmp_path / "machine", lambda head: head.update(version=version))
    refused(path, f"version {version}, by vmirom .*: expected version {VERSION}")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in a tree."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for i, item in enumerate(value[:4]):
            yield from leaves(item, (*path, i))
    else:
        yield path


def replaced(head: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        head = head[key]
    head[path[-1]] = value


def test_no_value_brings_down_the_host(saved: bytes, tmp_path: Path) -> None:
    """Each value in the file replaced by others: refused, or a guest that runs or fails."""
    with zipfile.ZipFile(_file(tmp_path, saved)) as archive:
        places = list(leaves(json.loads(archive.read("machine.json"))))
    assert len(places) > 250
    accepted = 0
    for number, place in list(enumerate(places))[::4]:
        value = (None, -1, 1 << 70, "x", [], {}, 0xFFFFFFFF, True)[number // 4 % 8]
        path = rewritten(
            saved, tmp_path / "machine", lambda head, p=place, v=value: replaced(head, p, v)
        )
        try:
            machine = Machine.resume(path, max_instructions=1_200_000, seconds=5)
        except BadDescription:
            continue
        accepted += 1
        machine.run()
    assert accepted < len(places) // 8


def _file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "whole"
    path.write_bytes(data)
    return path


def shadow_with(
    saved: bytes, path: Path, name: str, change: Callable[[array[int]], None], kind: str = "Q"
) -> Path:
    """The file with other shadow tables."""
    path.write_bytes(saved)
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    words = array(kind, entries[f"state/pages/entries/{name}"])
    change(words)
    entries[f"state/pages/entries/{name}"] = words.tobytes()
    _write(path, entries)
    return path


def first(words: array[int], wanted: Callable[[int], bool]) -> int:
    return next(i for i, word in enumerate(words) if i >= 512 and wanted(word))


@pytest.mark.parametrize(
    "address",
    [0xE0000000, 0xE0002000, 0xF0000000, 0xF0002000, 0xF8000000, 0xFFFFF000, 4 << 20],
    ids=hex,
)
def test_shadow_entries_lead_to_the_guests_memory_alone(
    address: int, saved: bytes, tmp_path: Path
) -> None:
    """Not to the tables themselves, nor to what the engine keeps beside them."""

    def change(words: array[int]) -> None:
        at = first(words, lambda word: word & 3 == 3 and word & 0xFFFFF000 < 4 << 20)
        words[at] = words[at] & ~0xFFFFF000 | address

    refused(shadow_with(saved, tmp_path / "machine", "entries", change), "shadow entry")


def test_shadow_links_lead_to_the_level_below(saved: bytes, tmp_path: Path) -> None:
    def to_root(words: array[int]) -> None:
        at = first(words, lambda word: word & 0xFF000001 == 0xE0000001 and word & 0xFFFFFF > 0x1FFF)
        words[at] = words[at] & ~0xFFFFF000 | 0xE0000000

    refused(shadow_with(saved, tmp_path / "machine", "entries", to_root), "shadow entry")

    def into_page(words: array[int]) -> None:
        words[0] = 0x00100001

    refused(shadow_with(saved, tmp_path / "machine", "entries", into_page), "shadow entry")


@pytest.mark.parametrize("name", ["pages", "free", "mappings", "parents"])
def test_lists_of_the_shadow_are_whole(name: str, saved: bytes, tmp_path: Path) -> None:
    for change in (
        lambda words: words.pop(),
        lambda words: words.append(words[0]),
        lambda words: words.__setitem__(0, 0xFFFFFFFF),
        lambda words: words.__setitem__(len(words) - 1, words[len(words) - 1] + 1),
    ):
        refused(shadow_with(saved, tmp_path / "machine", name, change, "I"), "pages: entries")


def test_a_cpu_without_tables_of_its_own(saved: bytes, tmp_path: Path) -> None:
    for root in (0, 0x1000, 0xE0001000):

        def change(head: dict[str, Any], root: int = root) -> None:
            head["state"]["cpu0"]["vcpu"]["cpu"]["root"] = root

        refused(rewritten(saved, tmp_path / "machine", change), "tables")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "machine"
    _saved(path)
    before = path.read_bytes()
    machine = maker("forkstorm", "batching", memory=4 << 20)()

    def fails(_text: str) -> None:
        raise OSError(28, os.strerror(28))

    with pytest.raises(BadDescription, match="No space left"):
        machine.save(path, fails)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["machine"]
    with pytest.raises(BadDescription, match="No such file"):
        machine.save(tmp_path / "absent" / "machine")
    machine.close()


def test_zero_pages_take_no_room(saved: bytes) -> None:
    assert len(saved) < 200_000
