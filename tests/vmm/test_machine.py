"""Whole machines: descriptions, exactness, and a shadow that is what it says."""

import dataclasses
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest

from rombuilder.guest import build_guest
from rombuilder.rom import Flavour, build_rom
from vmm.core.errors import BadDescription, EngineFailure
from vmm.core.event import Reason
from vmm.core.mmu.checker import ShadowChecker
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import policy_named
from vmm.machine import Machine, MachineDescription, Run

SMALL = "rounds=3 pages=32 tasks=3"


@pytest.fixture(scope="module")
def forkstorm() -> bytes:
    return build_guest("forkstorm").data


@pytest.fixture(scope="module")
def batching() -> bytes:
    return build_rom(Flavour.BATCHING).data


def run(guest: bytes, rom: bytes | None, **about) -> Run:
    about.setdefault("command_line", SMALL)
    return Machine(MachineDescription(guest, rom=rom, **about)).run()


@pytest.mark.parametrize("memory", [0, 4096, (4 << 20) - 4096, (4 << 20) + 1, (1 << 30) + 4096])
def test_memory_sizes_that_no_machine_has(tiny_guest, memory: int) -> None:
    with pytest.raises(BadDescription, match=f"memory of {memory} bytes"):
        Machine(MachineDescription(tiny_guest("start: hlt").data, memory=memory))


@pytest.mark.parametrize(
    ("rom", "message"),
    [
        (b"", "ROM header"),
        (bytes(512), "not a VMI ROM"),
        (b"\x55\xaa" + bytes(1022), "not a VMI ROM"),
    ],
)
def test_roms_that_are_none(tiny_guest, rom: bytes, message: str) -> None:
    with pytest.raises(BadDescription, match=message):
        Machine(MachineDescription(tiny_guest("start: hlt").data, rom=rom))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0x0D, 2, "API version"),
        (0x20, 0x55, "checksum"),
        (0x00, 0x00, "signature"),
        (0x02, 0xFF, "truncated"),
    ],
)
def test_roms_that_firmware_refuses(
    tiny_guest, batching: bytes, offset: int, value: int, message: str
) -> None:
    broken = bytearray(batching)
    broken[offset] = value
    with pytest.raises(BadDescription, match=message):
        Machine(MachineDescription(tiny_guest("start: hlt").data, rom=bytes(broken)))


@pytest.mark.parametrize("address", [0, 0xBF800, 0xC0400, 0xC0001, 0xDF800, 0xE0000])
def test_rom_addresses_that_no_firmware_uses(tiny_guest, batching: bytes, address: int) -> None:
    with pytest.raises(BadDescription, match="ROM"):
        Machine(
            MachineDescription(tiny_guest("start: hlt").data, rom=batching, rom_address=address)
        )


def test_the_rom_lies_where_it_was_put(tiny_guest, batching: bytes) -> None:
    machine = Machine(
        MachineDescription(tiny_guest("start: hlt").data, rom=batching, rom_address=0xC8800)
    )
    assert machine.ram[0xC8800:0xC8802] == b"\x55\xaa"
    assert machine.roms[0].address == 0xC8800


@pytest.mark.parametrize("policy", ["svm-shadow", "vtx-shadow", "npt"])
@pytest.mark.parametrize("flavour", [None, Flavour.IDENTITY, Flavour.BATCHING])
def test_two_runs_are_equal(forkstorm: bytes, flavour: Flavour | None, policy: str) -> None:
    rom = build_rom(flavour).data if flavour else None
    first, second = (run(forkstorm, rom, policy=policy_named(policy)) for _ in range(2))
    assert first.outcome.ok, first.console
    assert first == second


def test_a_busy_host_changes_nothing(forkstorm: bytes, batching: bytes) -> None:
    quiet = run(forkstorm, batching)
    spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        busy = run(forkstorm, batching)
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
    assert quiet == busy


@pytest.mark.parametrize("address", [0xC0800, 0xC1000, 0xCA800, 0xD3800, 0xD7000])
def test_the_rom_works_at_every_address(forkstorm: bytes, batching: bytes, address: int) -> None:
    here = run(forkstorm, batching)
    there = run(forkstorm, batching, rom_address=address)
    assert there.outcome.ok, (there.outcome, there.complaints, there.console)
    assert there.complaints == ()
    reasons = {**there.ledger.by_reason}, {**here.ledger.by_reason}
    # Pages begin elsewhere in the image, so its code may lie in one more or less.
    fills = [by_reason.pop(Reason.SHADOW_FILL).count for by_reason in reasons]
    assert abs(fills[0] - fills[1]) <= 2
    assert reasons[0] == reasons[1]
    assert there.paravirt.updates == here.paravirt.updates
    assert {name: use.count for name, use in there.calls.items()} == {
        name: use.count for name, use in here.calls.items()
    }


@pytest.mark.parametrize("queue", [1, 2, 31, 128, 1000, 1024])
def test_every_queue_size(forkstorm: bytes, queue: int) -> None:
    result = run(forkstorm, build_rom(Flavour.BATCHING, queue=queue).data)
    assert result.outcome.ok, result.outcome
    assert result.complaints == ()
    assert result.paravirt.largest_batch <= queue


@pytest.mark.parametrize("guest", ["forkstorm", "mmapstorm", "pagefault", "ctxswitch"])
@pytest.mark.parametrize("rom", [None, Flavour.IDENTITY, Flavour.BATCHING])
def test_guests_under_the_checker(guest: str, rom: Flavour | None) -> None:
    result = run(
        build_guest(guest).data,
        build_rom(rom).data if rom else None,
        command_line="rounds=2 pages=12 tasks=3",
        check_shadow=True,
    )
    assert result.outcome.ok, (result.outcome, result.console)
    assert result.shadow_entries_checked > 1000


def test_a_rom_that_never_flushes_is_found_out(forkstorm: bytes) -> None:
    result = run(forkstorm, build_rom(Flavour.BATCHING, defines={"OMIT_FLUSH": 1}).data)
    assert result.outcome.kind is OutcomeKind.FAILED


def test_a_rom_that_announces_nothing_is_slow_and_right(forkstorm: bytes) -> None:
    result = run(
        forkstorm,
        build_rom(Flavour.BATCHING, defines={"UNANNOUNCED": 1}).data,
        check_shadow=True,
    )
    assert result.outcome.ok
    assert result.ledger.by_reason["pte_write"].count > 100


# ---- the checker finds what is wrong

PRESENT, WRITABLE, USER = 1, 2, 4
TABLE, DIRECT, DIRECTORY = 1, 2, 3


@pytest.fixture
def ended(tiny_guest, make_machine) -> Machine:
    """A machine whose guest has used a read-only page, a table of its own and MMIO."""
    machine = make_machine(
        tiny_guest("""
start:	movl $0x200000 | OPEN, DIRECTORY + 4
	movl $0x300061, 0x200000
	movl $0x301000 | OPEN, 0x200004
	movl $0x80000000 | OPEN, 0x200008
	PAGING
	mov 0x400000, %eax
	mov %eax, 0x401000
	mov 0x402000, %eax
	mov 0x200000, %eax
	FINISH 0
""")
    )
    assert machine.run().outcome.ok
    ShadowChecker(machine.vcpu).check()
    return machine


def find(machine: Machine, wanted: Callable[[int, int, int], bool]) -> int:
    """The first present entry with wanted(kind of page, frame it leads to, entry)."""
    state = machine.vcpu.shadow.pages.snapshot()
    for index, entry in enumerate(state["entries"]):
        kind = state["kind"][index // 512]
        if entry & PRESENT and wanted(kind, (entry & 0xFFFFF000) >> 12, entry):
            return index
    pytest.fail("no such entry in the shadow")


@pytest.mark.parametrize(
    ("which", "change"),
    [
        ("leaf of the read-only page", lambda entry: entry | WRITABLE),
        ("leaf of the read-only page", lambda entry: entry | USER),
        ("leaf of the read-only page", lambda entry: entry + 0x1000),
        ("leaf of the writable page", lambda entry: entry + 0x1000),
        ("leaf of the writable page", lambda _: 0xE0002067),
        ("leaf of the writable page", lambda _: 0xF0000067),
        ("leaf of a window", lambda _: 0xF0000067),
        ("leaf of a window", lambda entry: entry + 0x1000),
        ("leaf of the table", lambda entry: entry | WRITABLE),
        ("link", lambda _: 0x300067),
        ("link", lambda _: 0xE0000067),
        ("link", lambda _: 0xF0000067),
        ("root", lambda _: 0xE0001001),
        ("root", lambda _: 0x00200001),
    ],
)
def test_planted_corruption_is_found(ended: Machine, which: str, change) -> None:
    places = {
        "leaf of the read-only page": lambda kind, frame, _: kind == TABLE and frame == 0x300,
        "leaf of the writable page": lambda kind, frame, _: kind == TABLE and frame == 0x301,
        "leaf of a window": lambda kind, frame, _: kind == TABLE and frame >= 0xF8000,
        "leaf of the table": lambda kind, frame, _: kind == TABLE and frame == 0x200,
        "link": lambda kind, _, __: kind == DIRECTORY,
        "root": lambda kind, _, __: kind > DIRECTORY + 1,
    }
    index = find(ended, places[which])
    at = 8 * index
    (entry,) = struct.unpack_from("<Q", ended._pool, at)
    struct.pack_into("<Q", ended._pool, at, change(entry))
    with pytest.raises(EngineFailure, match=r"shadow|frame"):
        ShadowChecker(ended.vcpu).check()


def test_a_check_in_a_run_ends_it(tiny_guest) -> None:
    """A stale shadow shows as soon as the guest exits again."""
    guest = tiny_guest("""
start:	movl $0x200000 | OPEN, DIRECTORY + 4
	movl $0x300000 | OPEN, 0x200000
	PAGING
	mov 0x400000, %eax
	cpuid
	cpuid
	FINISH 0
""")
    machine = Machine(MachineDescription(guest.data, memory=4 << 20, check_shadow=True))
    checker = machine.vcpu.after_exit
    exits = 0

    def meddle() -> None:
        nonlocal exits
        exits += 1
        if machine.vcpu.counters.totals().get(8):
            # Behind the monitor's back: no store of the guest's could do this.
            machine.memory.load(0x200000, struct.pack("<I", 0))
        checker()

    machine.vcpu.after_exit = meddle
    outcome = machine.run().outcome
    assert outcome.kind is OutcomeKind.ENGINE_FAILURE
    assert "shadow entry" in outcome.detail


def test_descriptions_are_values(forkstorm: bytes) -> None:
    about = MachineDescription(forkstorm, command_line=SMALL)
    assert about == dataclasses.replace(about)
    assert Machine(about).run() == Machine(dataclasses.replace(about)).run()


def test_code_that_is_mapped_elsewhere_is_fetched_anew(tiny_guest, make_machine) -> None:
    """A guest that moves its own code and loads CR3 next: the bytes there are others by then."""
    run = make_machine(
        tiny_guest(
            """
start:	PAGING
	mov $there, %esi
	and $~0xfff, %esi
	mov $0x220000, %edi
	mov $1024, %ecx
	cld
	rep movsl
	mov $there, %edi
	and $0xfff, %edi
	movl $0x90909090, 0x220000(%edi)
	mov $there, %ebx
	shr $12, %ebx
	mov %cr3, %eax
	movl $0x220000 | OPEN, TABLE(, %ebx, 4)
there:	mov %eax, %cr3
	nop
	FINISH 0
"""
        )
    ).run()
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
