"""The guests under real QEMU, with SeaBIOS bringing up the ROM: the peer that knows PCs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.inputs import load_guest
from rombuilder.guest import build_guest, guest_names
from rombuilder.rom import Calls, Flavour, build_rom

QEMU = "qemu-system-i386"
PASSED = 1
"""isa-debug-exit turns the result n into the exit status 2 n + 1."""

SMALL = "rounds=3 pages=40 tasks=3"

pytestmark = pytest.mark.peer(QEMU)

ROMS = {
    "none": None,
    "identity": (Flavour.IDENTITY, Calls.ALL),
    "identity, needed": (Flavour.IDENTITY, Calls.NEEDED),
    "batching": (Flavour.BATCHING, Calls.NEEDED),
    "batching, all": (Flavour.BATCHING, Calls.ALL),
}


def run_guest(
    folder: Path, guest: str, *options: str, append: str = SMALL
) -> subprocess.CompletedProcess[str]:
    """Boot a guest and wait for its verdict."""
    image = folder / f"{guest}.bin"
    image.write_bytes(build_guest(guest).data)
    disk = load_guest(guest).disk
    if disk:
        file = folder / "disk.img"
        file.write_bytes(disk)
        options = (*options, "-drive", f"file={file},format=raw,if=ide,snapshot=on")
    return subprocess.run(
        [
            QEMU,
            *("-kernel", str(image), "-append", append, "-m", "64", "-display", "none"),
            *("-nodefaults", "-no-user-config", "-accel", "tcg", "-no-reboot"),
            *("-device", "isa-debugcon,iobase=0x402,chardev=c", "-chardev", "stdio,id=c"),
            *("-device", "isa-debug-exit,iobase=0x501,iosize=4"),
            *options,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )


ELSEWHERE = [guest for guest in guest_names() if guest not in {"calibrate", "iostorm"}]
"""Not the guest that measures a clock, which is the host's there, and not the one that wants
a disk."""


@pytest.mark.parametrize("rom", ROMS)
@pytest.mark.parametrize("guest", ELSEWHERE)
def test_guests_pass(tmp_path: Path, guest: str, rom: str) -> None:
    options = []
    expected = "VMI: no ROM found"
    build = ROMS[rom]
    if build is not None:
        flavour, calls = build
        file = tmp_path / "rom.bin"
        file.write_bytes(build_rom(flavour, calls=calls).data)
        options = ["-option-rom", str(file)]
        expected = f"VMI: Found vmirom {flavour}, API version 3.0"
    result = run_guest(tmp_path, guest, *options)
    assert expected in result.stdout
    lines = result.stdout.splitlines()
    assert lines[-1].startswith(f"{guest}: ")
    assert lines[-1].endswith(", ok")
    assert result.returncode == PASSED, result.stdout + result.stderr


def test_the_summary_does_not_depend_on_the_rom(tmp_path: Path) -> None:
    rom = tmp_path / "rom.bin"
    rom.write_bytes(build_rom(Flavour.IDENTITY).data)
    for guest in ELSEWHERE:
        native = run_guest(tmp_path, guest).stdout.splitlines()[-2:]
        patched = run_guest(tmp_path, guest, "-option-rom", str(rom)).stdout.splitlines()[-2:]
        assert native[1] == patched[1]
        assert len(native[0]) == len(patched[0]), "a longer line would be more exits"


def test_a_rom_comes_up_from_a_pci_device_too(tmp_path: Path) -> None:
    """SeaBIOS wants vendor and device in PCIR to equal the card's."""
    file = tmp_path / "rom.bin"
    file.write_bytes(build_rom(Flavour.IDENTITY, pci=(0x8086, 0x100E)).data)
    result = run_guest(tmp_path, "ctxswitch", "-device", f"e1000,romfile={file}")
    assert "VMI: Found vmirom identity" in result.stdout
    assert result.returncode == PASSED


def test_a_rom_under_another_licence_is_refused(tmp_path: Path) -> None:
    rom = bytearray(build_rom(Flavour.IDENTITY).data)
    at = rom.index(b"GPL v2\0")
    rom[at : at + 3] = b"GLP"  # the same sum
    file = tmp_path / "rom.bin"
    file.write_bytes(bytes(rom))
    result = run_guest(tmp_path, "ctxswitch", "-option-rom", str(file))
    assert "(not GPL: refused)" in result.stdout
    assert result.returncode == PASSED


@pytest.mark.parametrize(
    ("append", "summary"),
    [
        ("", "forkstorm: 50 forks"),
        ("rounds=2 pages=3000", "forkstorm: 2 forks"),
        ("xrounds=9 rounds=1 pages=1 touches=9", "forkstorm: 1 forks"),
        ("rounds= pages=2", "forkstorm: 50 forks"),
        ("rounds=0 pages=0", "forkstorm: 1 forks"),
    ],
)
def test_parameters(tmp_path: Path, append: str, summary: str) -> None:
    result = run_guest(tmp_path, "forkstorm", append=append)
    assert summary in result.stdout
    assert result.returncode == PASSED, result.stdout


def test_a_guest_that_needs_more_memory_than_there_is_says_so(tmp_path: Path) -> None:
    result = run_guest(tmp_path, "forkstorm", "-m", "8", append="rounds=1 pages=4000")
    assert "failed: out of memory" in result.stdout
    assert result.returncode == 97 * 2 + 1
