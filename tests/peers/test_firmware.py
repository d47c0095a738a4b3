"""SeaBIOS under QEMU brings our ROMs up: the strictest reader of option ROMs there is."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from rombuilder.rom import Calls, Flavour, build_rom
from vmi.header import VMI_DEVICE, VMI_VENDOR

QEMU: Final = "qemu-system-i386"
ROM_AREA: Final = range(0xC0000, 0xE0000)
CARD: Final = (0x8086, 0x100E)  # QEMU's e1000
PATIENCE: Final = 60

pytestmark = pytest.mark.peer(QEMU, "/usr/share/seabios")

ROMS = {
    "identity": (Flavour.IDENTITY, Calls.ALL),
    "identity, needed": (Flavour.IDENTITY, Calls.NEEDED),
    "batching": (Flavour.BATCHING, Calls.NEEDED),
    "batching, all": (Flavour.BATCHING, Calls.ALL),
}


def image(name: str, pci: tuple[int, int] = (VMI_VENDOR, VMI_DEVICE)) -> bytes:
    flavour, calls = ROMS[name]
    return build_rom(flavour, calls=calls, pci=pci).data


@dataclass
class Booted:
    """A machine after POST."""

    log: str
    area: bytes
    """The option ROM area."""
    screen: str
    """Characters of the VGA text screen, lines of 80; whatever is there without a VGA."""
    protection: dict[int, int]
    """By 16 KiB segment, the bits of its PAM register: 1 may be read, 2 may be written."""

    @property
    def started(self) -> list[int]:
        """Where VMI ROMs were called; QEMU has option ROMs of its own."""
        found = re.findall(r"Running option rom at ([0-9a-f]{4}):0003", self.log)
        addresses = [int(segment, 16) << 4 for segment in found]
        return [address for address in addresses if self.at(address + 8, 4) == b"cVmi"]

    def at(self, address: int, size: int) -> bytes:
        offset = address - ROM_AREA.start
        return self.area[offset : offset + size]

    def segments(self, address: int, size: int) -> list[int]:
        """The PAM bits of every segment that holds a byte of the range."""
        first = address & ~0x3FFF
        return [self.protection[at] for at in range(first, address + size, 0x4000)]


class Monitor:
    """QEMU's machine protocol on its standard streams."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        json.loads(process.stdout.readline())
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"execute": command, "arguments": arguments}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            answer = json.loads(line)
            if "event" not in answer:
                return answer["return"]
        raise AssertionError(f"no answer to {command}")

    def human(self, line: str) -> str:
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def configuration(self, register: int) -> int:
        """A 32-bit word of the host bridge's PCI configuration space."""
        self.human(f"o /w 0xcf8 {0x80000000 | register:#x}")
        return int(self.human("i /w 0xcfc").split("=")[1], 16)


@contextmanager
def running(*options: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [
            QEMU,
            *("-nodefaults", "-no-user-config", "-accel", "tcg", "-display", "none", "-m", "32"),
            *("-machine", "pc", "-qmp", "stdio", *options),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def boot(folder: Path, *options: str) -> Booted:
    """POST to the point where SeaBIOS finds nothing to boot, and what is there then."""
    log, area, screen = folder / "log", folder / "area", folder / "screen"
    debug = ("-chardev", f"file,id=s,path={log}", "-device", "isa-debugcon,iobase=0x402,chardev=s")
    with running(*debug, *options) as process:
        monitor = Monitor(process)
        begun = time.monotonic()
        while "No bootable device" not in (text := log.read_text(errors="replace")):
            assert time.monotonic() - begun < PATIENCE, text
            time.sleep(0.05)
        monitor.execute("stop")
        monitor.execute("pmemsave", val=ROM_AREA.start, size=len(ROM_AREA), filename=str(area))
        monitor.execute("pmemsave", val=0xB8000, size=80 * 25 * 2, filename=str(screen))
        # Two segments in each of the bytes 0x5A to 0x5D (Intel 82441FX, 3.2.18).
        words = monitor.configuration(0x58) | monitor.configuration(0x5C) << 32
        registers = words.to_bytes(8, "little")[2:6]
        bits = [nibble & 3 for byte in registers for nibble in (byte, byte >> 4)]
        protection = {ROM_AREA.start + 0x4000 * index: value for index, value in enumerate(bits)}
        characters = screen.read_bytes()[::2].decode("latin-1")
        return Booted(text, area.read_bytes(), characters, protection)


def assert_in_place(booted: Booted, address: int, rom: bytes) -> None:
    assert address in ROM_AREA
    assert address % 0x800 == 0
    assert booted.at(address, len(rom)) == rom
    assert set(booted.segments(address, len(rom))) == {1}, "readable, and write-protected"


def written(folder: Path, rom: bytes, name: str = "vmi.rom") -> Path:
    file = folder / name
    file.write_bytes(rom)
    return file


@pytest.mark.parametrize("name", ROMS)
def test_given_by_option_rom(tmp_path: Path, name: str) -> None:
    rom = image(name)
    booted = boot(tmp_path, "-option-rom", str(written(tmp_path, rom)))
    (address,) = booted.started
    assert_in_place(booted, address, rom)


@pytest.mark.parametrize("name", ROMS)
def test_given_by_a_pci_device(tmp_path: Path, name: str) -> None:
    rom = image(name, CARD)
    booted = boot(tmp_path, "-device", f"e1000,romfile={written(tmp_path, rom)}")
    (address,) = booted.started
    assert_in_place(booted, address, rom)


def test_a_pci_device_with_another_id_is_not_served(tmp_path: Path) -> None:
    assert (VMI_VENDOR, VMI_DEVICE) != CARD
    rom = image("identity")
    booted = boot(tmp_path, "-device", f"e1000,romfile={written(tmp_path, rom)}")
    assert booted.started == []
    assert rom not in booted.area


def test_an_image_with_a_wrong_sum_is_not_started(tmp_path: Path) -> None:
    rom = bytearray(image("identity"))
    rom[0x14] ^= 1
    booted = boot(tmp_path, "-option-rom", str(written(tmp_path, bytes(rom))))
    assert booted.started == []


def test_several_roms_are_packed_and_each_is_whole(tmp_path: Path) -> None:
    roms = [image(name) for name in ROMS]
    options = [
        part
        for index, rom in enumerate(roms)
        for part in ("-option-rom", str(written(tmp_path, rom, f"{index}.rom")))
    ]
    booted = boot(tmp_path, *options)
    assert len(booted.started) == len(roms)
    assert any(address % 0x1000 for address in booted.started), "one on 2 KiB only"
    for rom in roms:  # in an order of SeaBIOS's own
        (address,) = [at for at in booted.started if booted.at(at, len(rom)) == rom]
        assert_in_place(booted, address, rom)


@pytest.mark.parametrize("name", ["identity", "batching"])
def test_the_banner_on_the_screen_says_what_and_where(tmp_path: Path, name: str) -> None:
    rom = image(name)
    booted = boot(tmp_path, "-vga", "std", "-option-rom", str(written(tmp_path, rom)))
    (address,) = booted.started
    assert "Running option rom at c000:0003" in booted.log
    assert address > ROM_AREA.start
    assert_in_place(booted, address, rom)
    assert f"vmirom 1.0 {name} at {address:#x} " in booted.screen
