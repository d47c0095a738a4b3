"""Whatever is wrong is said in one line, with the status that belongs to it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from vmi.header import BLOCK_SIZE, checksum

Run = Callable[..., Result]

API_MAJOR = 0x0D
VROM_SIGNATURE = 0x08
MULTIBOOT_MAGIC = 0x1BADB002
HAS_ADDRESSES = 1 << 16
MIB = 1 << 20


def complaint(run: Run, *arguments: str, status: int = 2) -> str:
    """The one line on stderr; nothing on stdout where the input is bad."""
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert not isinstance(result.exception, Exception)
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("vmirom: ")
    if status == 2:
        assert result.stdout == ""
    return lines[0]


def resummed(image: bytes, offset: int, value: int) -> bytes:
    """A ROM with one byte changed, and its checksum mended in the last byte."""
    data = bytearray(image)
    data[offset] = value
    data[-1] = (data[-1] - checksum(bytes(data))) & 0xFF
    return bytes(data)


def multiboot(
    *, flags: int = HAS_ADDRESSES, load: int = MIB, end: int = 0, code: bytes = b""
) -> bytes:
    check = -(MULTIBOOT_MAGIC + flags) & 0xFFFFFFFF
    header = struct.pack("<8I", MULTIBOOT_MAGIC, flags, check, load, load, 0, end, load + 32)
    return header + code


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("run", "nope"),
            "guest 'nope': no such file, and not one of the built-in guests calibrate, ctxs",
        ),
        (("run", ""), "guest '': expected a file or one of"),
        (("run", "x" * 5000), "File name too long"),
        (("compare", "nope"), "guest 'nope'"),
        (("bench", "exits", "--guest", "nope"), "guest 'nope'"),
        (("bench", "batching", "--guest", "nope"), "guest 'nope'"),
        (("run", "nope.S"), "guest 'nope.S': no such file"),
        (("run", "forkstorm", "--rom", "nope"), "ROM 'nope': no such file"),
        (("run", "forkstorm", "--rom", ""), "ROM '': expected a file or one of none, ident"),
        (("compare", "forkstorm", "--roms", "none,nope"), "ROM 'nope': no such file"),
        (("compare", "forkstorm", "--roms", "none,"), "ROM '': expected a file or one of"),
        (("compare", "forkstorm", "--roms", ""), "ROM '': expected a file or one of"),
        (("run", "forkstorm", "--policy", "fast"), "policy 'fast': expected one of svm-shadow"),
        (("bench", "exits", "--policy", "fast"), "policy 'fast'"),
        (("bench", "batching", "--policy", "fast"), "policy 'fast'"),
        (("run", "forkstorm", "--intercept", "+tea"), "intercept '+tea': expected + or -"),
        (("run", "forkstorm", "--intercept", "rdtsc"), "intercept 'rdtsc': expected + or -"),
        (("run", "forkstorm", "--intercept", ""), "intercept '': expected + or -"),
        (("run", "forkstorm", "--memory", "0"), "memory of 0 bytes: expected whole pages"),
        (("run", "forkstorm", "--memory", "1M"), "memory of 1048576 bytes: expected whole pages"),
        (("run", "forkstorm", "--memory", "5000000"), "memory of 5000000 bytes: expected whole"),
        (("run", "forkstorm", "--memory", "99G"), "memory of 106300440576 bytes: expected whole"),
        (("run", "forkstorm", "--memory", "abc"), "'abc': expected a number of bytes"),
        (("run", "forkstorm", "--memory", "-1"), "'-1': expected a number of bytes"),
        (("run", "forkstorm", "--queue", "0"), "'--queue': 0 is not in the range 1<=x<=1024"),
        (("run", "forkstorm", "--queue", "1025"), "'--queue': 1025 is not in the range"),
        (("compare", "forkstorm", "--queue", "many"), "'--queue': 'many' is not a valid"),
        (("build", "--queue", "0"), "queue of 0 records: the capacity must be from 1 to 1024"),
        (("build", "--flavour", "vanilla"), "'vanilla' is not one of 'identity', 'batching'"),
        (("build", "-o", "/nonexistent/x.rom"), "/nonexistent/x.rom: No such file"),
        (("run", "forkstorm", "--append", "x" * 600_000), "command line of 600000 characters"),
        (("run", "forkstorm", "--append", "\udcff"), "expected UTF-8"),
        (("run", "forkstorm", "--max-instructions", "0"), "0 is not in the range x>=1"),
        (("run", "forkstorm", "--places", "-1"), "-1 is not in the range x>=0"),
        (("bench", "exits", "--repetitions", "0"), "0 is not in the range x>=1"),
        (("run",), "Missing argument 'GUEST'"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("run", "forkstorm", "--frobnicate"), "No such option"),
        (("inspect", "nope"), "nope: No such file"),
    ],
)
def test_bad_arguments(run: Run, arguments: tuple[str, ...], says: str) -> None:
    assert says in complaint(run, *arguments)


@pytest.mark.parametrize("verb", [("run", "forkstorm", "--rom"), ("inspect",)])
def test_a_rom_that_cannot_be_read(run: Run, tmp_path: Path, verb: tuple[str, ...]) -> None:
    empty = tmp_path / "empty.rom"
    empty.touch()
    assert "needs 32 bytes, but the image ends at 0x0" in complaint(run, *verb, str(empty))
    assert "irectory" in complaint(run, *verb, str(tmp_path))
    # A file in the place of a folder: unreadable for root too.
    assert "Not a directory" in complaint(run, *verb, str(empty / "x.rom"))


def test_a_rom_that_is_not_one(run: Run, rom: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.rom"

    def says(image: bytes) -> str:
        file.write_bytes(image)
        return complaint(run, "run", "forkstorm", "--rom", str(file))

    assert "truncated: its header says" in says(rom[: BLOCK_SIZE * 2])
    assert "needs 32 bytes, but the image ends at 0xa" in says(rom[:10])
    assert "bytes sum to 0x01, expected 0" in says(rom[:-1] + bytes([(rom[-1] + 1) & 0xFF]))
    assert "API version 4.0, expected 3.x" in says(resummed(rom, API_MAJOR, 4))
    assert "not a VMI ROM: signature" in says(resummed(rom, VROM_SIGNATURE, 0))
    assert "not a VMI ROM" in says(b"neither fish nor fowl " * 100)
    assert "signature 0x0055, expected 0xaa55" in says(resummed(rom, 1, 0))


def test_a_guest_that_is_not_one(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "guest"

    def says(image: bytes, *options: str) -> str:
        file.write_bytes(image)
        return complaint(run, "run", str(file), *options)

    assert "neither a Multiboot image" in says(b"")
    assert "neither a Multiboot image" in says(b"neither fish nor fowl " * 100)
    assert "lack bit 16" in says(multiboot(flags=0))
    assert "guest occupies 0x100000-0x2000000" in says(multiboot(end=32 * MIB), "--memory", "16M")
    assert "guest occupies 0x1000-" in says(multiboot(load=0x1000))
    assert "irectory" in complaint(run, "run", str(tmp_path))


def test_a_guest_source_with_a_mistake(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "broken.S"
    source.write_text("\t.text\n\tmuv %eax, %edx\n", encoding="ascii")
    assert "broken.S:2" in complaint(run, "run", str(source))


FAIL = bytes.fromhex("ba01050000 b807000000 ef fa f4")  # out 7 to port 0x501; cli; hlt
TRIPLE_FAULT = bytes.fromhex("0f0b")  # ud2 without an IDT
ENDLESS = bytes.fromhex("ebfe")  # jmp to itself
HALT = bytes.fromhex("fa f4")  # cli; hlt


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (FAIL, "failed: the guest's check 7 failed"),
        (TRIPLE_FAULT, "triple_fault"),
        (ENDLESS, "limit: 100000 instructions have passed"),
        (HALT, "halted: HLT with interrupts off"),
    ],
    ids=["failing", "triple fault", "endless", "dead"],
)
def test_a_guest_that_goes_wrong(run: Run, tmp_path: Path, code: bytes, outcome: str) -> None:
    file = tmp_path / "guest"
    file.write_bytes(multiboot(code=code))
    options = ("--max-instructions", "100000")
    assert outcome in complaint(run, "run", str(file), *options, status=1)
    assert outcome in complaint(run, "run", str(file), "--json", *options, status=1)
    result = run("compare", str(file), "--roms", "none,identity", *options)
    assert result.exit_code == 1
    assert [outcome in line for line in result.stderr.splitlines()] == [True, True]
