"""Calls in C: what docs/howto-c-call.md says, done and compared with GNU ld."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import unicorn
from unicorn import x86_const as x86

from linker.elf_reader import read_elf
from linker.elf_writer import write_elf
from linker.objects import ObjectFile
from rombuilder.errors import BuildError
from rombuilder.replace import load_object
from rombuilder.rom import Calls, Flavour, Rom, build_rom, rom_objects
from rombuilder.sources import rom_dir
from vmi.calls import call_named
from vmi.header import GET_RELOC
from vmi.queue import DEFAULT_CAPACITY
from vmi.relocation import RelocationAnswer, RelocationKind

ROOT = Path(__file__).resolve().parents[2]
HOWTO = (ROOT / "docs" / "howto-c-call.md").read_text(encoding="utf-8")
CFLAGS = [
    *("-m32", "-march=i686", "-ffreestanding", "-fPIC", "-fvisibility=hidden", "-mregparm=3"),
    *("-mgeneral-regs-only", "-fcf-protection=none", "-O2"),
]
BASE = 0xC00C8800
RAM = 0xC0400000
STACK = 0xC0500000
RETURN = 0xC0600000

pytestmark = pytest.mark.peer("gcc", "as", "ld", "objcopy", "objdump")


def compile_c(folder: Path, source: str, *options: str, name: str = "c") -> ObjectFile:
    (folder / f"{name}.c").write_text(source)
    command = ["gcc", *CFLAGS, *options, "-c", f"{name}.c", "-o", f"{name}.o"]
    subprocess.run(command, cwd=folder, check=True)
    return read_elf(folder / f"{name}.o")


def call(
    rom: Rom, name: str, *arguments: int, memory: dict[int, int] | None = None
) -> tuple[int, dict[int, int]]:
    """Make a call at some address; EAX, and the memory that was given, afterwards."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
    uc.mem_map(BASE & ~0xFFF, 0x20000, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
    uc.mem_write(BASE, rom.data)
    for start in (RAM, STACK, RETURN):
        uc.mem_map(start, 0x1000)
    if "__data_start" in rom.symbols and rom.symbols["__data_size"]:
        first = (BASE + rom.symbols["__data_start"]) & ~0xFFF
        end = BASE + rom.symbols["__data_start"] + rom.symbols["__data_size"]
        uc.mem_protect(first, -(-end // 0x1000) * 0x1000 - first)
    for address, value in (memory or {}).items():
        uc.mem_write(address, value.to_bytes(4, "little"))

    def run(address: int, eax: int = 0, edx: int = 0, ecx: int = 0) -> None:
        top = STACK + 0x800
        uc.mem_write(top, RETURN.to_bytes(4, "little"))
        uc.reg_write(x86.UC_X86_REG_ESP, top)
        for register, value in (
            (x86.UC_X86_REG_EAX, eax), (x86.UC_X86_REG_EDX, edx), (x86.UC_X86_REG_ECX, ecx),
        ):  # fmt: skip
            uc.reg_write(register, value)
        uc.emu_start(address, RETURN, count=10_000)
        assert uc.reg_read(x86.UC_X86_REG_EIP) == RETURN
        assert uc.reg_read(x86.UC_X86_REG_ESP) == top + 4

    run(BASE + GET_RELOC, call_named(name).number)
    answer = RelocationAnswer.from_registers(
        uc.reg_read(x86.UC_X86_REG_EAX), uc.reg_read(x86.UC_X86_REG_EDX)
    )
    assert answer.kind is RelocationKind.CALL_REL
    run(answer.address, *arguments)
    after = {address: int.from_bytes(uc.mem_read(address, 4), "little") for address in memory or {}}
    return uc.reg_read(x86.UC_X86_REG_EAX), after


def same_as_ld(
    folder: Path, flavour: Flavour, objects: Sequence[ObjectFile], replace: dict[str, str]
) -> Rom:
    """Build with ours and with GNU ld, which gets the compiler's own files; the ROM."""
    rom = build_rom(flavour, calls=Calls.ALL, objects=objects, replace=replace)
    names = []
    own = rom_objects(flavour, queue=DEFAULT_CAPACITY, calls=Calls.ALL, replace=replace)
    for obj in own:
        (folder / f"rom_{obj.name}").write_bytes(write_elf(obj))
        names.append(f"rom_{obj.name}")
    names += [obj.name for obj in objects]
    command = [
        "ld", "-m", "elf_i386", *names, "-T", rom_dir() / "rom.ld",
        "-o", "gnu.elf", "--no-warn-rwx-segments",
    ]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    subprocess.run(["objcopy", "-O", "binary", "gnu.elf", "gnu.bin"], cwd=folder, check=True)
    assert rom.image.data.hex(" ") == (folder / "gnu.bin").read_bytes().hex(" ")
    return rom


def test_the_howto(tmp_path: Path) -> None:
    files = re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", HOWTO, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in files] == ["set_pxe.c", "get_cr2.s"]
    for name, text in files:
        (tmp_path / name).write_text(text)
    scripts = re.findall(r"^```sh\n(.*?)^```", HOWTO, re.MULTILINE | re.DOTALL)
    vmirom = f'vmirom() {{ "{sys.executable}" -m vmirom "$@"; }}'
    output = ""
    for script in scripts:
        done = subprocess.run(
            ["bash", "-euc", f"{vmirom}\n{script}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        output += done.stdout
    assert "ROM mine.rom saved" in output
    assert "<set_pxe>:" in output
    names = ["get_cr2.o", "set_pxe.o"]
    objects = [load_object(tmp_path / name) for name in names]
    replace = {"GetCR2": "get_cr2", "SetPxE": "set_pxe"}
    rom = same_as_ld(tmp_path, Flavour.IDENTITY, objects, replace)
    assert rom.data == (tmp_path / "both.rom").read_bytes()
    _, memory = call(rom, "SetPxE", 0x1063, RAM + 8, memory={RAM + 8: 0x55})
    assert memory == {RAM + 8: 0x1063}


TABLES = """
static const unsigned table[4] = {11, 22, 33, 44};
__attribute__((noinline)) static unsigned look(unsigned i) { return table[i & 3]; }
unsigned pick(unsigned a, unsigned b) { return look(a) + look(b); }
"""


@pytest.mark.parametrize("flavour", list(Flavour))
def test_constants_are_found_from_where_the_code_is(tmp_path: Path, flavour: Flavour) -> None:
    obj = compile_c(tmp_path, TABLES)
    kinds = {relocation.kind.name for s in obj.sections for relocation in s.relocations}
    assert {"R_386_GOTPC", "R_386_GOTOFF"} <= kinds
    rom = same_as_ld(tmp_path, flavour, [obj], {"SetLDT": "pick"})
    assert call(rom, "SetLDT", 1, 3)[0] == 66


def test_thunks_of_several_objects_are_linked_once(tmp_path: Path) -> None:
    first = compile_c(tmp_path, TABLES, name="one")
    second = compile_c(tmp_path, TABLES.replace("pick", "choose"), name="two")
    assert [group.signature for group in first.groups] == [g.signature for g in second.groups]
    rom = same_as_ld(tmp_path, Flavour.IDENTITY, [first, second], {"SetTR": "choose"})
    assert call(rom, "SetTR", 0, 2)[0] == 44
    assert [piece.object for piece in rom.image.discarded if "thunk" in piece.section] == ["two.o"]


DATA = """
unsigned total = 5;
static unsigned count;
__attribute__((visibility("hidden"))) unsigned common_total;
unsigned add(unsigned n) { count++; common_total += n; total += n; return total + count; }
"""


def test_writable_data_in_the_batching_rom(tmp_path: Path) -> None:
    obj = compile_c(tmp_path, DATA, "-fcommon")
    assert [symbol.name for symbol in obj.symbols if symbol.common] == ["common_total"]
    rom = same_as_ld(tmp_path, Flavour.BATCHING, [obj], {"SetTR": "add"})
    assert call(rom, "SetTR", 10)[0] == 16


def test_writable_data_in_the_identity_rom_is_refused(tmp_path: Path) -> None:
    obj = compile_c(tmp_path, DATA)
    message = r"c\.o: section \.data of 4 bytes is to be written, and nobody makes .* identity"
    with pytest.raises(BuildError, match=message):
        build_rom(Flavour.IDENTITY, objects=[obj], replace={"SetTR": "add"})


def test_the_table_of_addresses_is_not_needed(tmp_path: Path) -> None:
    """Without hidden visibility gcc reads the table; the address is computed instead."""
    visible = "-fvisibility=default"
    user = compile_c(
        tmp_path,
        "extern const unsigned far[4]; extern void absent(void) __attribute__((weak));\n"
        "unsigned twice(unsigned); unsigned (*which(void))(unsigned) { return twice; }\n"
        "unsigned use(unsigned i) { return far[i] + which()(i) + (absent ? 1000 : 0); }\n",
        visible,
        name="user",
    )
    maker = compile_c(
        tmp_path,
        "const unsigned far[4] = {1, 2, 3, 4}; unsigned twice(unsigned n) { return 2 * n; }",
        visible,
        name="maker",
    )
    kinds = {relocation.kind.name for s in user.sections for relocation in s.relocations}
    assert "R_386_GOT32X" in kinds
    rom = build_rom(Flavour.IDENTITY, objects=[user, maker], replace={"SetTR": "use"})
    assert call(rom, "SetTR", 3)[0] == 10
