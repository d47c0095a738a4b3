"""The writer and the reader, against each other and against GNU tools."""

import subprocess
from pathlib import Path

import pytest

from linker.elf_reader import read_elf
from linker.elf_writer import write_elf
from linker.errors import ObjectError
from linker.link import link
from linker.objects import (
    Binding,
    ObjectFile,
    Relocation,
    RelocationKind,
    Section,
    SectionFlag,
    Symbol,
    SymbolKind,
)
from linker.script_parser import parse_script

A, W, X = SectionFlag.ALLOC, SectionFlag.WRITE, SectionFlag.EXEC


def sample() -> ObjectFile:
    text = Section(".text", A | X, bytes(16), 16, 4)
    bss = Section(".bss", A | W, b"", 64, 32, nobits=True)
    wanted = Symbol("wanted", binding=Binding.GLOBAL)
    bss_symbol = Symbol(".bss", bss, kind=SymbolKind.SECTION)
    text.relocations += [
        Relocation(0, RelocationKind.R_386_32, bss_symbol, 8),
        Relocation(4, RelocationKind.R_386_PC32, wanted, -4),
        Relocation(8, RelocationKind.R_386_16, wanted, 2),
        Relocation(10, RelocationKind.R_386_PC16, wanted, -2),
    ]
    symbols = [
        bss_symbol,
        wanted,
        Symbol("local", text, 3),
        Symbol("function", text, 4, Binding.GLOBAL, SymbolKind.FUNCTION, 8),
        Symbol("number", None, 0x1234, Binding.GLOBAL, absolute=True),
    ]
    return ObjectFile("sample.o", [text, bss], symbols)


def summary(obj: ObjectFile) -> object:
    sections = [
        (
            section.name, section.flags, section.data, section.size, section.alignment,
            section.nobits,
            [(r.offset, r.kind, r.symbol.name, r.addend) for r in section.relocations],
        )
        for section in obj.sections
        if section.size
    ]  # fmt: skip
    symbols = {
        (
            s.name,
            s.section.name if s.section else "",
            s.value,
            s.binding,
            s.kind,
            s.size,
            s.absolute,
        )
        for s in obj.symbols
    }
    return sections, symbols


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "sample.o"
    path.write_bytes(write_elf(sample()))
    assert summary(read_elf(path)) == summary(sample())


@pytest.mark.peer("readelf")
def test_readelf_has_no_warnings(tmp_path: Path) -> None:
    path = tmp_path / "sample.o"
    path.write_bytes(write_elf(sample()))
    done = subprocess.run(["readelf", "-aW", path], capture_output=True, text=True, check=True)
    assert "arning" not in done.stdout + done.stderr
    assert "R_386_PC16" in done.stdout


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an ELF file"),
        (b"MZ" + bytes(100), "not an ELF file"),
        (b"\x7fELF", "damaged ELF file|expected a relocatable"),
    ],
)
def test_what_is_no_object_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad.o"
    path.write_bytes(data)
    with pytest.raises(ObjectError, match=message):
        read_elf(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ObjectError, match=r"none\.o: No such file"):
        read_elf(tmp_path / "none.o")


def compile_c(folder: Path, source: str, *options: str) -> Path:
    (folder / "c.c").write_text(source)
    command = ["gcc", "-m32", "-ffreestanding", "-fno-pic", "-O2", *options, "-c", "c.c"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "c.o"


C_SOURCE = """
extern int outside(int);
static int table[3] = {1, 2, 3};
static int zeros[10];
int value = 7;
int *pointer = &value;
int call(int n) { zeros[n] = outside(table[n]); return value + zeros[1]; }
"""

C_SCRIPT = """
SECTIONS {
  . = 0x100000;
  .text : { *(.text*) }
  .rodata : { *(.rodata*) }
  .data : { *(.data*) }
  .bss : { *(.bss*) }
  outside = 0x200000;
  /DISCARD/ : { *(.eh_frame* .comment .note*) }
}
"""


@pytest.mark.peer("gcc", "ld")
def test_a_gcc_object_links_as_with_ld(tmp_path: Path) -> None:
    path = compile_c(tmp_path, C_SOURCE)
    (tmp_path / "s.ld").write_text(C_SCRIPT)
    command = ["ld", "-m", "elf_i386", "c.o", "-T", "s.ld", "--oformat", "binary", "-o", "out"]
    subprocess.run(command, cwd=tmp_path, check=True)
    image = link([read_elf(path)], parse_script(C_SCRIPT))
    assert image.data == (tmp_path / "out").read_bytes()
    assert image.symbols["call"] == 0x100000


@pytest.mark.peer("gcc")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "extern _Thread_local int x; int f(void) { return x; }",
            r"c\.o: \.text\+0x\w+: relocation R_386_TLS_\w+ is not supported",
        ),
        ("_Thread_local int x = 3;", r"c\.o: section \.tdata holds thread-local data"),
        (
            "__attribute__((constructor)) void f(void) {}",
            r"c\.o: section \.init_array holds constructors, which nothing would call",
        ),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, source: str, message: str) -> None:
    path = compile_c(tmp_path, source, "-fPIC")
    with pytest.raises(ObjectError, match=message):
        read_elf(path)
