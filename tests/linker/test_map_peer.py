"""Our map beside GNU ld's -Map: the same places, sizes and contributions, in the same columns."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from linker.elf_writer import write_elf
from linker.link import link
from linker.map import render_map
from linker.objects import ObjectFile
from linker.script_parser import parse_script
from rombuilder.guest import guest_object
from rombuilder.rom import Calls, Flavour, rom_objects
from rombuilder.sources import guests_dir, rom_dir
from vmi.queue import DEFAULT_CAPACITY

pytestmark = pytest.mark.peer("ld")

OUTPUT = re.compile(r"^(\S+)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)$")
INPUT = re.compile(r"^ ([^*\s]\S*)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) (\S+)$")
SYMBOL = re.compile(r"^ {16}0x([0-9a-f]+) {16,}(\w+)(?: = .*)?$")

Rows = set[tuple[str, ...]]


def rows(text: str) -> tuple[Rows, Rows, Rows]:
    """Output sections, contributions and symbols, read as tools read ld's map."""
    text = text.split("Linker script and memory map\n", 1)[1]
    # A name of 16 characters or more has a line of its own.
    text = re.sub(r"^( ?\S{15,})\n {16}", r"\1 ", text, flags=re.MULTILINE)
    found: tuple[Rows, Rows, Rows] = (set(), set(), set())
    for line in text.splitlines():
        for pattern, group in zip((OUTPUT, INPUT, SYMBOL), found, strict=True):
            match = pattern.match(line)
            if match is not None and "0" not in match.groups()[2:3]:
                group.add(match.groups())
    return found


def compare(folder: Path, objects: list[ObjectFile], script: str) -> None:
    (folder / "script.ld").write_text(script)
    for obj in objects:
        (folder / obj.name).write_bytes(write_elf(obj))
    names = [obj.name for obj in objects]
    command = ["ld", "-m", "elf_i386", *names, "-T", "script.ld", "--no-warn-rwx-segments"]
    subprocess.run([*command, "-o", "out.elf", "-Map", "out.map"], cwd=folder, check=True)
    ours = rows(render_map(link(objects, parse_script(script))))
    gnu = rows((folder / "out.map").read_text())
    assert ours[0] == gnu[0]
    assert ours[1] == gnu[1]
    assert ours[2] <= gnu[2]
    assert len(ours[1]) >= 1


@pytest.mark.parametrize("flavour", list(Flavour))
def test_roms(tmp_path: Path, flavour: Flavour) -> None:
    objects = rom_objects(flavour, queue=DEFAULT_CAPACITY, calls=Calls.ALL)
    compare(tmp_path, objects, (rom_dir() / "rom.ld").read_text())


def test_a_guest(tmp_path: Path) -> None:
    compare(tmp_path, [guest_object("forkstorm")], (guests_dir() / "guest.ld").read_text())
