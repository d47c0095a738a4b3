from pathlib import Path

import pytest

from rombuilder.assembler import assemble_text
from rombuilder.disassembly import disassemble, read_symbols
from rombuilder.errors import BuildError
from rombuilder.inspect import inspect_rom
from rombuilder.rom import Flavour, build_rom


def code(source: str) -> bytes:
    return assemble_text(source).section(".text").data


def texts(image: bytes, routines: dict[str, int], **symbols: int) -> list[list[str]]:
    return [
        [one.text for one in routine.instructions]
        for routine in disassemble(image, routines, symbols)
    ]


def test_a_routine_ends_where_nothing_goes_on() -> None:
    image = code("test %eax, %eax\n jz 1f\n ret\n 1: sti\n hlt\n ret\n nop")
    assert texts(image, {"f": 0}) == [
        ["testl %eax, %eax", "je 0x5 <f+0x5>", "retl", "sti", "hlt", "retl"]
    ]
    for end in ("iret", "sysexit", "jmp *%eax"):
        assert len(texts(code(f"nop\n {end}\n nop"), {"f": 0})[0]) == 2


def test_targets_and_routines_have_names() -> None:
    image = code("call 1f\n ret\n 1: inc %eax\n ret")
    assert texts(image, {"f": 0}, helper=6) == [["calll 0x6 <helper>", "retl"]]
    (routine,) = disassemble(image, {"a": 6, "b": 6}, {"c": 6})
    assert routine.names == ("a", "b", "c")


def test_an_entry_that_jumps_is_followed() -> None:
    assert texts(code("jmp 1f\n nop\n 1: ret"), {"f": 0}) == [["jmp 0x3 <f+0x3>", "retl"]]


def test_every_call_of_a_rom(tmp_path: Path) -> None:
    rom = build_rom(Flavour.IDENTITY)
    elf = tmp_path / "rom.elf"
    for base in (0, 0xC00C8000):
        elf.write_bytes(rom.elf(base))
        symbols = read_symbols(elf)
        assert symbols["native_GetCR2"] == rom.symbols["native_GetCR2"]
        assert "UNIT" not in symbols
    routines = disassemble(rom.data, inspect_rom(rom.data).routines, symbols)
    by_name = {name: routine for routine in routines for name in routine.names}
    assert [one.text for one in by_name["GetCR2"].instructions] == ["movl %cr2, %eax", "retl"]
    assert by_name["GetCR2"] is by_name["native_GetCR2"]
    assert [one.text for one in by_name["IRET"].instructions] == ["iretl"]
    assert len(by_name["get_reloc"].instructions) > 5


def test_what_has_no_symbols(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"none\.elf: No such file"):
        read_symbols(tmp_path / "none.elf")
    (tmp_path / "a.elf").write_bytes(b"hello")
    with pytest.raises(BuildError, match=r"a\.elf: not an ELF file"):
        read_symbols(tmp_path / "a.elf")
