"""The ELF of a ROM, read by the tools that people use on one."""

import re
import subprocess
from pathlib import Path

import pytest

from rombuilder.rom import Calls, Flavour, Rom, build_rom

BASE = 0xC00C8000


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


@pytest.fixture(name="rom", params=list(Flavour))
def fixture_rom(request: pytest.FixtureRequest) -> Rom:
    return build_rom(request.param, calls=Calls.ALL)


@pytest.fixture(name="elf")
def fixture_elf(rom: Rom, tmp_path: Path) -> Path:
    path = tmp_path / "rom.elf"
    path.write_bytes(rom.elf(BASE))
    return path


@pytest.mark.peer("readelf")
def test_readelf_has_no_warnings(elf: Path, rom: Rom) -> None:
    text = run("readelf", "-aW", elf)
    assert "arning" not in text
    assert f"Entry point address:               {BASE + rom.symbols['vmi_init']:#x}" in text
    assert re.search(r"4 FUNC +GLOBAL DEFAULT +\d native_GetCR2", text)
    assert re.search(rf"{BASE + 0x40:08x} +24 OBJECT +LOCAL +DEFAULT +1 pcir", text)
    assert re.search(r"FILE +LOCAL +DEFAULT +ABS header\.o", text)
    assert re.search(r"00000800 +0 NOTYPE +GLOBAL DEFAULT +ABS UNIT", text)


@pytest.mark.peer("nm")
def test_nm_has_every_symbol_at_its_address(elf: Path, rom: Rom) -> None:
    found = {
        name: (int(address, 16), kind)
        for address, kind, name in (line.split() for line in run("nm", elf).splitlines())
    }
    numbers = {label.name for label in rom.image.labels if label.is_number}
    for name, offset in rom.symbols.items():
        base = 0 if name in numbers else BASE
        assert found[name][0] == base + offset, name
    assert found["vmi_init"][1] == "T"
    assert found["UNIT"][1] == "A"


@pytest.mark.peer("objdump")
def test_objdump_names_the_calls_and_shows_the_rom(elf: Path, rom: Rom, tmp_path: Path) -> None:
    text = run("objdump", "-d", elf)
    assert f"{BASE + rom.symbols['native_GetCR2']:08x} <native_GetCR2>:" in text
    assert re.search(r"<get_reloc_entry>:\n.*jmp +\w+ <get_reloc>", text)
    assert "<pcir>:\n" in text
    flat = tmp_path / "flat.bin"
    run("objcopy", "-O", "binary", "-j", ".header", "-j", ".text", elf, flat)
    data = flat.read_bytes()
    header = rom.image.section(".header").size
    assert data[:header] == rom.data[:header]


@pytest.mark.peer("gdb")
def test_gdb_finds_functions_and_breaks_on_them(elf: Path, rom: Rom) -> None:
    inside = BASE + rom.symbols["get_reloc"] + 1
    text = run(
        "gdb", "-nx", "-batch",
        "-ex", f"info symbol {inside:#x}",
        "-ex", "disassemble vmi_init",
        "-ex", "break native_IRET",
        "-ex", f"x/s {BASE + rom.data.index(b'GPL'):#x}",
        elf,
    )  # fmt: skip
    assert "get_reloc + 1 in section .text" in text
    assert "Dump of assembler code for function vmi_init" in text
    assert f"Breakpoint 1 at {BASE + rom.symbols['native_IRET']:#x}" in text
    assert 'GPL v2"' in text
    assert "arning" not in text
