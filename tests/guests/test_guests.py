"""The guests as images, and what they show in the monitor."""

from __future__ import annotations

import functools

import pytest

from bench.inputs import load_guest
from rombuilder.guest import GuestImage, build_guest, guest_names, guest_summary
from rombuilder.rom import Calls, Flavour, build_rom
from vmi.calls import call_numbered
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription, Run

GUESTS = guest_names()
WORKLOADS = ["ctxswitch", "forkstorm", "mmapstorm", "pagefault"]
POLLING = {"calibrate"}
"""Guests that read a clock until it says so: how often depends on the ROM's instructions, too."""
PROBED = 45
"""Calls that the probe makes: all of them but those it says it leaves out."""
SMALL = "rounds=4 pages=48 tasks=3"
MULTIBOOT_MAGIC = 0x1BADB002
LEAST_SITE = 5
"""A call with a 32-bit distance."""


@functools.cache
def image(guest: str) -> GuestImage:
    return build_guest(guest)


@functools.cache
def rom(flavour: str, *defines: str, calls: Calls | None = None, queue: int = 128) -> bytes:
    values = dict.fromkeys(defines, 1)
    return build_rom(Flavour(flavour), calls=calls, queue=queue, defines=values).data


def run(guest: str, rom_image: bytes | None, append: str = SMALL, *, check: bool = False) -> Run:
    return Machine(
        MachineDescription(
            guest=image(guest).data,
            rom=rom_image,
            command_line=append,
            disk=load_guest(guest).disk or None,
            check_shadow=check,
        )
    ).run()


def exits(result: Run) -> dict[str, int]:
    return {str(reason): row.count for reason, row in result.ledger.by_reason.items()}


def word(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def test_the_workloads_are_there() -> None:
    assert [*WORKLOADS, "probe"] == sorted({*WORKLOADS, "probe"} & set(GUESTS))


@pytest.mark.parametrize("guest", GUESTS)
def test_summaries_are_one_line(guest: str) -> None:
    summary = guest_summary(guest)
    assert 20 < len(summary) < 100
    assert not summary.endswith(".")


@pytest.mark.parametrize("guest", GUESTS)
def test_multiboot_header(guest: str) -> None:
    data = image(guest).data
    header = data.index(MULTIBOOT_MAGIC.to_bytes(4, "little"))
    assert header % 4 == 0
    assert header < 0x2000
    magic, flags, checksum, *addresses = (word(data, header + 4 * n) for n in range(8))
    assert (magic + flags + checksum) & 0xFFFFFFFF == 0
    assert flags & 0x10000
    header_address, load, load_end, bss_end, entry = addresses
    assert load == image(guest).load_address
    assert header_address == load + header
    assert load_end == load + len(data)
    assert bss_end >= load_end
    assert load < entry < load_end


@pytest.mark.parametrize("guest", GUESTS)
def test_sites_have_room_for_a_call(guest: str) -> None:
    built = image(guest)
    base = built.load_address + built.kernel_base
    start = built.symbols.get("vmi_sites")
    end = built.symbols.get("vmi_sites_end")
    assert start is not None
    assert end is not None
    rows = range(start - base, end - base, 12)
    calls = set()
    last = 0
    for row in rows:
        first, behind, number = (word(built.data, row + 4 * n) for n in range(3))
        assert behind - first >= LEAST_SITE
        assert first >= last, "sites overlap"
        last = behind
        calls.add(call_numbered(number).name)
    paging = {"SetPxE", "SetCR3", "AllocatePage"}
    assert "IRET" in calls
    assert paging <= calls if built.kernel_base else not paging & calls


@pytest.mark.parametrize("guest", [guest for guest in GUESTS if guest not in POLLING])
@pytest.mark.parametrize("calls", list(Calls))
def test_identity_changes_no_exit(guest: str, calls: Calls) -> None:
    native = run(guest, None)
    identity = run(guest, rom("identity", calls=calls))
    assert native.outcome.ok, native.console
    assert identity.outcome.ok, identity.console
    assert "VMI: no ROM found" in native.console
    assert "VMI: Found vmirom identity, API version 3.0" in identity.console
    assert exits(identity) == exits(native)


@pytest.mark.parametrize("guest", WORKLOADS)
@pytest.mark.parametrize("queue", [1, 7, 128])
def test_batching_under_the_checker(guest: str, queue: int) -> None:
    result = run(guest, rom("batching", queue=queue), "rounds=2 pages=12 tasks=3", check=True)
    assert result.outcome.ok, result.console
    assert result.complaints == ()
    assert result.shadow_entries_checked > 0
    assert result.paravirt.updates > 0


@pytest.mark.parametrize("guest", GUESTS)
def test_batching_leaves_no_page_table_write_to_trap(guest: str) -> None:
    native = run(guest, None)
    batching = run(guest, rom("batching"))
    assert exits(batching).get("pte_write", 0) <= min(1, exits(native).get("pte_write", 0))


def test_a_repeated_string_instruction_is_one_call() -> None:
    """`ideread` reads 1 MiB; natively each word is an exit and a block of its own."""
    native = run("ideread", rom("identity"), "").calls["INSW"]
    emulated = run("ideread", rom("batching"), "").calls["INSW"]
    assert native.count == emulated.count
    assert native.instructions >= 512 * 1024 > 100 * native.count


def test_the_probe_makes_its_calls_through_the_rom() -> None:
    for rom_image in (None, rom("identity"), rom("batching", calls=Calls.ALL)):
        result = run("probe", rom_image)
        assert result.outcome.ok, result.console
        assert f"probe: {PROBED} calls, ok" in result.console


def test_forkstorm_saves_what_it_promises() -> None:
    native = run("forkstorm", None, "rounds=10")
    batching = run("forkstorm", rom("batching"), "rounds=10")
    assert exits(batching)["pte_write"] <= 0.05 * exits(native)["pte_write"]
    assert batching.ledger.total <= 0.2 * native.ledger.total


@pytest.mark.parametrize("guest", ["forkstorm", "mmapstorm"])
def test_updates_that_are_never_told_are_noticed(guest: str) -> None:
    result = run(guest, rom("batching", "OMIT_FLUSH"))
    assert result.outcome.kind is OutcomeKind.FAILED
    assert "a stale translation" in result.console


@pytest.mark.parametrize("guest", GUESTS)
def test_pages_never_announced_are_still_traced(guest: str) -> None:
    result = run(guest, rom("batching", "UNANNOUNCED"), check=True)
    assert result.outcome.ok, result.console
    assert result.complaints == ()


def test_unannounced_pages_trap() -> None:
    announced = run("forkstorm", rom("batching"))
    unannounced = run("forkstorm", rom("batching", "UNANNOUNCED"))
    assert exits(unannounced)["pte_write"] > 50 * exits(announced)["pte_write"]


@pytest.mark.parametrize(
    "append", ["rounds=9 pages=3 touches=1", "rounds=40 pages=11 touches=11", "pages=1 rounds=30"]
)
@pytest.mark.parametrize("guest", GUESTS)
def test_odd_parameters(guest: str, append: str) -> None:
    for rom_image in (None, rom("batching", queue=5)):
        result = run(guest, rom_image, append)
        assert result.outcome.ok, result.console


@pytest.mark.parametrize("guest", GUESTS)
def test_two_runs_are_one(guest: str) -> None:
    first, second = (run(guest, rom("batching")) for _ in range(2))
    assert exits(first) == exits(second)
    assert first.instructions == second.instructions
    assert first.memory_crc == second.memory_crc
