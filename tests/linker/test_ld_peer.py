"""GNU ld is the judge of a layout: same script, same objects, same bytes and symbols."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linker.elf_writer import write_elf
from linker.image import Image
from linker.link import link
from linker.objects import (
    Binding,
    ObjectFile,
    Relocation,
    RelocationKind,
    Section,
    SectionFlag,
    Symbol,
)
from linker.script_parser import parse_script
from rombuilder.guest import build_guest, guest_layout, guest_names, guest_object
from rombuilder.rom import Calls, Flavour, build_rom, rom_objects
from rombuilder.sources import guests_dir, rom_dir

pytestmark = pytest.mark.peer("ld", "nm")

A, W, X = SectionFlag.ALLOC, SectionFlag.WRITE, SectionFlag.EXEC
KINDS = {
    ".text": (A | X, False),
    ".text.hot": (A | X, False),
    ".rodata": (A, False),
    ".data": (A | W, False),
    ".bss": (A | W, True),
}


def ld(folder: Path, objects: list[ObjectFile], script: str) -> tuple[bytes, dict[str, int]]:
    (folder / "script.ld").write_text(script)
    names = []
    for obj in objects:
        (folder / obj.name).write_bytes(write_elf(obj))
        names.append(obj.name)
    # The script comes last: a file that it names would otherwise move to the front.
    command = ["ld", "-m", "elf_i386", *names, "-T", "script.ld", "--no-warn-rwx-segments"]
    binary = [*command, "--oformat", "binary", "-o", "out.bin"]
    subprocess.run(binary, cwd=folder, check=True, capture_output=True)
    subprocess.run([*command, "-o", "out.elf"], cwd=folder, check=True, capture_output=True)
    listing = subprocess.run(
        ["nm", "out.elf"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    symbols = {line.split()[2]: int(line.split()[0], 16) for line in listing.splitlines()}
    return (folder / "out.bin").read_bytes(), symbols


def same(folder: Path, objects: list[ObjectFile], script: str) -> Image:
    image = link(objects, parse_script(script))
    data, symbols = ld(folder, objects, script)
    assert image.data.hex(" ") == data.hex(" ")
    assert {name: symbols[name] for name in image.symbols} == {
        name: address & 0xFFFFFFFF for name, address in image.symbols.items()
    }
    return image


@st.composite
def sections(draw: st.DrawFn, always: list[str]) -> list[Section]:
    drawn = draw(st.lists(st.sampled_from(sorted(KINDS)), unique=True, min_size=1))
    chosen = sorted({*drawn, *always})
    result = []
    for name in chosen:
        flags, nobits = KINDS[name]
        size = draw(st.integers(8, 40))
        alignment = 1 << draw(st.integers(0, 5))
        data = b"" if nobits else bytes((7 * i + size) & 0xFF for i in range(size))
        result.append(Section(name, flags, data, size, alignment, nobits))
    return result


@st.composite
def object_files(draw: st.DrawFn) -> list[ObjectFile]:
    objects = []
    symbols: list[Symbol] = []
    for number in range(draw(st.integers(1, 4))):
        # Output sections without contents are a matter of their own in ld.
        always = [".text", ".data"] if number == 0 else []
        obj = ObjectFile(f"o{number}.o", draw(sections(always)))
        for index, section in enumerate(obj.sections):
            value = draw(st.integers(0, section.size))
            name = f"sym_{number}_{index}"
            obj.symbols.append(Symbol(name, section, value, Binding.GLOBAL))
        symbols += obj.symbols
        objects.append(obj)
    for obj in objects:
        wanted = {symbol.name: symbol for symbol in obj.symbols}
        for section in obj.sections:
            if section.nobits:
                continue
            count = draw(st.integers(0, section.size // 8))
            for slot in range(count):
                target = draw(st.sampled_from(symbols))
                if target.name not in wanted:
                    wanted[target.name] = Symbol(target.name, binding=Binding.GLOBAL)
                    obj.symbols.append(wanted[target.name])
                kind = draw(
                    st.sampled_from(
                        [
                            RelocationKind.R_386_32,
                            RelocationKind.R_386_PC32,
                            RelocationKind.R_386_16,
                            RelocationKind.R_386_PC16,
                        ]
                    )
                )
                addend = draw(st.integers(-16, 16))
                data = bytearray(section.data)
                data[slot * 8 : slot * 8 + kind.width] = bytes(kind.width)
                section.data = bytes(data)
                section.relocations.append(Relocation(slot * 8, kind, wanted[target.name], addend))
    return objects


@st.composite
def scripts(draw: st.DrawFn) -> str:
    fill = draw(st.sampled_from(["", "=0x90", "=0x1234", "=0xdeadbeef", "=0x9090909090", "=144"]))
    attribute = draw(st.sampled_from(["", "ALIGN(0x40)", "ALIGN(8)"]))
    base = draw(st.sampled_from([0x100, 0x1000, 0x4321]))
    gap = draw(st.integers(0, 33))
    inner = draw(
        st.sampled_from(
            [
                ". = ALIGN(16);",
                f". = . + {gap};",
                f". += {gap};",
                "BYTE(1) SHORT(0x1234) LONG(start_data + 1)",
                "inner = .; offset = . - start_data;",
                "FILL(0x77) . = ALIGN(32);",
                f". = ALIGN(. != 0 ? 64 : 1); inner = ALIGN(8) + {gap};",
                "",
            ]
        )
    )
    text = draw(
        st.sampled_from(
            [
                "*(.text .text.*)",
                "*(.text) *(.text.*)",
                "*1.o(.text) *(.text*)",
                "*(.text.hot) *(.text)",
            ]
        )
    )
    bss = draw(st.booleans())
    inside, after = ("*(.bss)", "") if bss else ("", ".bss : { *(.bss) } end_bss = .;")
    return f"""
        OUTPUT_FORMAT("elf32-i386")
        base = {base};
        SECTIONS {{
          . = base;
          .text : {attribute} {{ {text} }} {fill}
          end_text = .;
          .rodata ALIGN(end_text + {gap}, 0x20) : {{ KEEP(*(.rodata)) }} {fill}
          /* a comment */
          .data : {attribute} {{ start_data = .; *(.data) {inner} {inside} }} {fill}
          {after}
          size_data = SIZEOF(.data);
          late = MAX(ADDR(.text) + 0x10, end_text) & ~3;
          PROVIDE(unwanted = 5);
          ASSERT(end_text >= base, "text ends before it starts")
        }}
    """


@settings(max_examples=60, deadline=None)
@given(objects=object_files(), script=scripts())
def test_generated_cases(
    tmp_path_factory: pytest.TempPathFactory, objects: list[ObjectFile], script: str
) -> None:
    same(tmp_path_factory.mktemp("ld"), objects, script)


@pytest.mark.parametrize("calls", list(Calls))
@pytest.mark.parametrize("flavour", list(Flavour))
def test_the_shipped_roms(tmp_path: Path, flavour: Flavour, calls: Calls) -> None:
    objects = rom_objects(flavour, queue=128, calls=calls)
    image = same(tmp_path, objects, (rom_dir() / "rom.ld").read_text())
    assert image.data == build_rom(flavour, calls=calls).image.data


@pytest.mark.parametrize("name", guest_names())
def test_the_guests(tmp_path: Path, name: str) -> None:
    objects = [guest_object(name)]
    image = same(tmp_path, objects, guest_layout(guests_dir() / f"{name}.S").read_text())
    assert image.data == build_guest(name).data
