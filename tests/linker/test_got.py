"""Instructions that read the global offset table, rewritten as GNU ld does it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from linker.elf_reader import read_elf
from linker.errors import AbsoluteRelocationError, ObjectError
from linker.image import Image
from linker.link import link
from linker.script_parser import parse_script

SCRIPT = """
SECTIONS {
  . = 0x1000;
  .text : { *(.text) }
  .rodata : { *(.rodata) *(.got .got.plt) }
  .data : { *(.data) }
  /DISCARD/ : { *(.interp .dynamic .dynsym .dynstr .hash .gnu.hash .rel.*) }
}
"""
DATA = ".data\n.long 0\n.global target\ntarget: .long 5\n"
TABLE = "call 1f\n1: pop %ebx\nadd $_GLOBAL_OFFSET_TABLE_, %ebx\n"

pytestmark = pytest.mark.peer("as", "ld", "objcopy")


def assemble(folder: Path, source: str, *options: str) -> Path:
    (folder / "a.s").write_text(f".text\n{TABLE}{source}\n{DATA}")
    subprocess.run(["as", "--32", *options, "-o", "a.o", "a.s"], cwd=folder, check=True)
    return folder / "a.o"


def ours(path: Path, *independent: str) -> Image:
    return link([read_elf(path)], parse_script(SCRIPT), position_independent=independent)


def gnu(folder: Path, *options: str) -> bytes:
    (folder / "s.ld").write_text(SCRIPT)
    command = ["ld", "-m", "elf_i386", *options, "a.o", "-T", "s.ld", "-o", "a.elf"]
    subprocess.run([*command, "--no-warn-rwx-segments"], cwd=folder, check=True)
    copy = ["objcopy", "-O", "binary", "a.elf", "a.bin"]
    subprocess.run(copy, cwd=folder, check=True)
    return (folder / "a.bin").read_bytes()


ANYWHERE = [
    "mov target@GOT(%ebx), %eax",
    "mov target@GOT(%ecx), %edi",
    "call *target@GOT(%ebx)",
    "jmp *target@GOT(%ebx)",
]
ABSOLUTE = [
    *(f"{name} target@GOT(%ebx), %edx" for name in ("add", "or", "adc", "sbb")),
    *(f"{name} target@GOT(%ebx), %esi" for name in ("and", "sub", "xor", "cmp")),
    "test %ecx, target@GOT(%ebx)",
]


@pytest.mark.parametrize("source", [*ANYWHERE, *ABSOLUTE])
def test_at_a_fixed_address_as_ld_does_it(tmp_path: Path, source: str) -> None:
    path = assemble(tmp_path, source)
    assert ours(path).data.hex(" ") == gnu(tmp_path).hex(" ")


@pytest.mark.parametrize("source", ANYWHERE)
def test_position_independent_code_as_ld_does_it_for_pie(tmp_path: Path, source: str) -> None:
    path = assemble(tmp_path, f".hidden target\n{source}")
    code = ours(path, "*").section(".text").size
    text = gnu(tmp_path, "-pie", "--no-dynamic-linker")[:code]
    # The table lies elsewhere among what a dynamic linker is given; the code is the same.
    own = bytearray(ours(path, "*").data[:code])
    assert own[12:14] == text[12:14]
    if source.startswith("mov"):
        assert own[12] == 0x8D


@pytest.mark.parametrize("source", [*ABSOLUTE, "mov target@GOT, %eax", "push target@GOT(%ebx)"])
def test_what_needs_a_table_is_refused(tmp_path: Path, source: str) -> None:
    path = assemble(tmp_path, source)
    message = r"a\.o: \S+: R_386_GOT32X? against target needs an entry of a global offset table"
    with pytest.raises((ObjectError, AbsoluteRelocationError), match=message):
        ours(path, "*")


def test_an_assembler_that_marks_nothing(tmp_path: Path) -> None:
    path = assemble(tmp_path, "mov target@GOT(%ebx), %eax", "-mrelax-relocations=no")
    assert ours(path, "*").data[12] == 0x8D
    path = assemble(tmp_path, "add target@GOT(%ebx), %eax", "-mrelax-relocations=no")
    with pytest.raises(ObjectError, match="R_386_GOT32 against target"):
        ours(path)
