from pathlib import Path

import pytest

from linker.errors import AbsoluteRelocationError, DuplicateSymbolError, UndefinedSymbolError
from rombuilder.assembler import assemble_text
from rombuilder.errors import BuildError
from rombuilder.inspect import inspect_rom
from rombuilder.replace import load_object
from rombuilder.rom import Calls, Flavour, build_rom
from vmi.calls import call_named
from vmi.relocation import RelocationKind

MINE = assemble_text(".global mine\nmine: mov $CALL, %eax\n ret", symbols={"CALL": 7}, name="m.S")


@pytest.mark.parametrize("flavour", list(Flavour))
@pytest.mark.parametrize(
    ("call", "kind"), [("GetCR2", RelocationKind.CALL_REL), ("IRET", RelocationKind.JUMP_REL)]
)
def test_get_reloc_answers_with_the_other_function(
    flavour: Flavour, call: str, kind: RelocationKind
) -> None:
    rom = build_rom(flavour, calls=Calls.ALL, objects=[MINE], replace={call: "mine"})
    answers = {answer.number: answer for answer in inspect_rom(rom.data).calls}
    answer = answers[call_named(call).number]
    assert answer.kind is kind
    assert answer.offset == rom.symbols["mine"]
    plain = {answer.number: answer for answer in inspect_rom(build_rom(flavour).data).calls}
    other = call_named("SYSEXIT").number
    assert answers[other].offset == rom.symbols["native_SYSEXIT"]
    assert plain[other].kind is answers[other].kind


def test_a_queued_call_is_replaced_whatever_the_host_grants() -> None:
    rom = build_rom(Flavour.BATCHING, objects=[MINE], replace={"SetPxE": "mine"})
    answer = inspect_rom(rom.data).calls[call_named("SetPxE").number]
    assert answer.offset == rom.symbols["mine"]


def test_a_function_of_the_rom_will_do() -> None:
    rom = build_rom(Flavour.IDENTITY, replace={"GetCR2": "native_GetCR3"})
    answer = inspect_rom(rom.data).calls[call_named("GetCR2").number]
    assert answer.offset == rom.symbols["native_GetCR3"]


def test_what_cannot_be_replaced() -> None:
    with pytest.raises(BuildError, match="cannot replace 'Nothing': there is no such call"):
        build_rom(Flavour.IDENTITY, replace={"Nothing": "mine"})
    with pytest.raises(BuildError, match="cannot replace CPUID: this ROM does not offer it"):
        build_rom(Flavour.BATCHING, objects=[MINE], replace={"CPUID": "mine"})
    with pytest.raises(UndefinedSymbolError, match=r"dispatch\.o.*undefined symbol elsewhere"):
        build_rom(Flavour.IDENTITY, replace={"CPUID": "elsewhere"})
    text = assemble_text(".global vmi_init\nvmi_init: ret", name="d.S")
    with pytest.raises(DuplicateSymbolError, match=r"vmi_init: .*dispatch\.o.* and in d\.o"):
        build_rom(Flavour.IDENTITY, objects=[text])
    with pytest.raises(AbsoluteRelocationError, match=r"a\.o\(\.text\) at f\+0x1: absolute 32-bit"):
        build_rom(Flavour.IDENTITY, objects=[assemble_text("f: mov $f, %eax", name="a.S")])


def test_the_16_bit_area_can_overflow() -> None:
    """The table of offers and the entry code hold offsets of 16 bits."""
    big = assemble_text(".text\n.fill 0x10000, 1, 0x90\n.global far\nfar: ret", name="big.S")
    message = r"dispatch\.o.*R_386_16 against far needs the value 0x10\w+, .* 0xffff"
    with pytest.raises(ValueError, match=message):
        build_rom(Flavour.IDENTITY, objects=[big], replace={"CPUID": "far"})


def test_an_image_over_its_size() -> None:
    big = assemble_text(".text\n.fill 0x20000, 1, 0x90", name="big.S")
    with pytest.raises(ValueError, match=r"image is 132\d+ bytes, at most 130560 are allowed"):
        build_rom(Flavour.IDENTITY, objects=[big])


def test_a_source_is_assembled_with_the_symbols_of_the_interface(tmp_path: Path) -> None:
    source = tmp_path / "a.S"
    source.write_text(".global f\nf: mov $CALL_SetPxE, %eax\n ret\n")
    obj = load_object(source)
    assert obj.name == "a.o"
    assert obj.section(".text").data == bytes.fromhex("b826000000c3")
