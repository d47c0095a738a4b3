import pytest

from linker.errors import ObjectError, UndefinedSymbolError
from linker.link import link
from linker.objects import (
    Binding,
    Group,
    ObjectFile,
    Relocation,
    RelocationKind,
    Section,
    SectionFlag,
    Symbol,
)
from linker.script_parser import parse_script

A, W, X = SectionFlag.ALLOC, SectionFlag.WRITE, SectionFlag.EXEC
SCRIPT = parse_script(
    "SECTIONS { . = 0x1000; .text : { *(.text .text.*) } .bss : { *(.bss) *(COMMON) } }"
)


def common(name: str, size: int, alignment: int) -> Symbol:
    return Symbol(name, None, alignment, Binding.GLOBAL, size=size, common=True)


def user(obj: str, *symbols: Symbol) -> ObjectFile:
    """An object whose text holds the address of each symbol."""
    text = Section(".text", A | X, bytes(4 * len(symbols)), 4 * len(symbols), 4)
    text.relocations += [
        Relocation(4 * n, RelocationKind.R_386_32, symbol) for n, symbol in enumerate(symbols)
    ]
    return ObjectFile(obj, [text], list(symbols))


def words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]


def test_common_symbols_get_the_largest_room() -> None:
    first = user("a.o", common("x", 4, 4), common("y", 2, 2))
    second = user("b.o", common("x", 8, 16))
    image = link([first, second], SCRIPT)
    assert image.symbols == {"y": 0x1010, "x": 0x1020}
    assert words(image.data[:12]) == [0x1020, 0x1010, 0x1020]
    assert [(p.object, p.section, p.size) for p in image.section(".bss").pieces] == [
        ("a.o", "COMMON", 2),
        ("b.o", "COMMON", 8),
    ]


def test_a_definition_beats_a_common_symbol_and_that_a_weak_one() -> None:
    bss = Section(".bss", A | W, b"", 8, 4, nobits=True)
    for binding, section in ((Binding.GLOBAL, ".bss"), (Binding.WEAK, "COMMON")):
        maker = ObjectFile("m.o", [bss], [Symbol("x", bss, 4, binding)])
        image = link([user("a.o", common("x", 4, 4)), maker], SCRIPT)
        (x,) = [label for label in image.labels if label.name == "x" and label.is_global][-1:]
        assert image.symbols["x"] == (0x1008 if section == ".bss" else 0x100C)
        assert x.section == ".bss"


def grouped(obj: str, byte: bytes) -> ObjectFile:
    section = Section(".text.once", A | X, byte * 4, 4)
    once = Symbol("once", section, 0, Binding.GLOBAL)
    local = Symbol("inside", section, 1)
    text = Section(".text", A | X, bytes(4), 4)
    text.relocations.append(Relocation(0, RelocationKind.R_386_PC32, once, -4))
    return ObjectFile(obj, [text, section], [once, local], [Group("once", (section,))])


def test_a_group_is_linked_once() -> None:
    image = link([grouped("a.o", b"\xaa"), grouped("b.o", b"\xbb")], SCRIPT)
    assert image.data[4:8] == b"\xaa" * 4
    assert len(image.data) == 12
    assert words(image.data[8:]) == [(0x1004 - 0x100C) & 0xFFFFFFFF]
    assert [(piece.object, piece.section) for piece in image.discarded] == [("b.o", ".text.once")]
    assert [label.object for label in image.labels if label.name == "inside"] == ["a.o"]


def test_a_local_symbol_of_a_dropped_group_cannot_be_used() -> None:
    second = grouped("b.o", b"\xbb")
    local = second.symbols[1]
    second.sections[0].relocations[0] = Relocation(0, RelocationKind.R_386_PC32, local)
    with pytest.raises(ObjectError, match=r"b\.o: inside is used, but its section \.text\.once"):
        link([grouped("a.o", b"\xaa"), second], SCRIPT)


def test_nothing_makes_a_table_where_none_is_asked_for() -> None:
    obj = user("a.o", Symbol("_GLOBAL_OFFSET_TABLE", binding=Binding.GLOBAL))
    with pytest.raises(UndefinedSymbolError, match="_GLOBAL_OFFSET_TABLE"):
        link([obj], SCRIPT)
