import pytest

from linker.errors import (
    AbsoluteRelocationError,
    AssertionFailedError,
    DuplicateSymbolError,
    ImageSizeError,
    ObjectError,
    OrphanSectionError,
    OverlapError,
    RelocationOverflowError,
    ScriptError,
    UndefinedSymbolError,
)
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

A, W, X = SectionFlag.ALLOC, SectionFlag.WRITE, SectionFlag.EXEC
SCRIPT = parse_script(
    "SECTIONS { . = 0x1000; .text : { *(.text) } .data : { *(.data) } /DISCARD/ : { *(.junk) } }",
    "s.ld",
)


def text(data: bytes = bytes(8), name: str = ".text") -> Section:
    return Section(name, A | X, data, len(data))


def wanting(kind: RelocationKind, symbol: str = "far", addend: int = 0) -> ObjectFile:
    section = text()
    wanted = Symbol(symbol, binding=Binding.GLOBAL)
    section.relocations.append(Relocation(4, kind, wanted, addend))
    return ObjectFile("a.o", [section], [Symbol("start", section, 2), wanted])


def having(symbol: str = "far", section: Section | None = None, value: int = 0) -> ObjectFile:
    section = section or text(b"\xcc" * 4)
    return ObjectFile("b.o", [section], [Symbol(symbol, section, value, Binding.GLOBAL)])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (RelocationKind.R_386_32, 0x1008 + 3),
        (RelocationKind.R_386_PC32, 0x1008 + 3 - 0x1004),
        (RelocationKind.R_386_16, 0x1008 + 3),
        (RelocationKind.R_386_PC16, 7),
        (RelocationKind.R_386_PC8, 7),
    ],
)
def test_relocation(kind: RelocationKind, expected: int) -> None:
    image = link([wanting(kind, addend=3), having()], SCRIPT)
    assert image.base == 0x1000
    assert int.from_bytes(image.data[4 : 4 + kind.width], "little") == expected
    assert image.symbols == {"far": 0x1008}
    assert [label.name for label in image.labels] == ["start", "far"]


def test_addresses_wrap_at_4_gib() -> None:
    absolute = ObjectFile(
        "c.o", [], [Symbol("far", None, 0xFFFFF000, Binding.GLOBAL, absolute=True)]
    )
    image = link([wanting(RelocationKind.R_386_PC32), absolute], SCRIPT)
    assert int.from_bytes(image.data[4:8], "little") == 0xFFFFF000 - 0x1004


def test_undefined_symbol_names_place() -> None:
    with pytest.raises(
        UndefinedSymbolError, match=r"a\.o\(\.text\) at start\+0x2: undefined .* far"
    ):
        link([wanting(RelocationKind.R_386_32)], SCRIPT)


def test_weak_reference_is_zero() -> None:
    obj = wanting(RelocationKind.R_386_32)
    weak = Symbol("far", binding=Binding.WEAK)
    obj.sections[0].relocations[0] = Relocation(4, RelocationKind.R_386_32, weak)
    assert link([obj], SCRIPT).data == bytes(8)


def test_weak_definition_gives_way() -> None:
    section = text(b"\xcc" * 4)
    weak = ObjectFile("w.o", [section], [Symbol("far", section, 0, Binding.WEAK)])
    for objects in ([weak, having()], [having(), weak]):
        image = link(objects, SCRIPT)
        assert image.symbols["far"] == (0x1004 if objects[0] is weak else 0x1000)


def test_duplicate_symbol_names_both() -> None:
    with pytest.raises(DuplicateSymbolError, match=r"far: defined in b\.o\(\.text\) and in b\.o"):
        link([having(), having()], SCRIPT)
    with pytest.raises(DuplicateSymbolError, match=r"b\.o\(\.text\) and in s\.ld:1"):
        link([having()], parse_script("far = 1; SECTIONS { .text : { *(.text) } }", "s.ld"))


def test_overflow_of_a_16_bit_field_names_both_values() -> None:
    script = parse_script("SECTIONS { . = 0x20000; .text : { *(.text) } }")
    with pytest.raises(
        RelocationOverflowError,
        match=r"R_386_16 against far needs the value 0x20008, .* holds -0x8000 to 0xffff",
    ) as caught:
        link([wanting(RelocationKind.R_386_16), having()], script)
    assert caught.value.value == 0x20008
    assert caught.value.limits == (-0x8000, 0xFFFF)


def test_signed_byte_overflow() -> None:
    far = having("far", text(bytes(200)), 140)
    with pytest.raises(RelocationOverflowError, match=r"needs the value 0x90"):
        link([wanting(RelocationKind.R_386_PC8), far], SCRIPT)


def test_absolute_address_where_position_independence_is_required() -> None:
    objects = [wanting(RelocationKind.R_386_32), having()]
    with pytest.raises(
        AbsoluteRelocationError, match=r"reference to far, but output section \.text must be"
    ):
        link(objects, SCRIPT, position_independent=[".t*"])
    assert link(objects, SCRIPT, position_independent=[".data"]).data


def test_a_plain_number_is_no_address() -> None:
    number = ObjectFile("c.o", [], [Symbol("far", None, 77, Binding.GLOBAL, absolute=True)])
    image = link([wanting(RelocationKind.R_386_32), number], SCRIPT, position_independent=["*"])
    assert image.data[4] == 77


def test_a_distance_computed_by_the_script_is_no_address() -> None:
    script = parse_script(
        "SECTIONS { .text : { a = .; *(.text) b = .; } far = b - a; }",
    )
    image = link([wanting(RelocationKind.R_386_32)], script, position_independent=["*"])
    assert image.data[4] == 8


def test_orphan_section() -> None:
    with pytest.raises(OrphanSectionError, match=r"b\.o: section \.odd is placed by no rule"):
        link([having("far", text(name=".odd"))], SCRIPT)


def test_sections_that_take_no_memory_are_left_out() -> None:
    comment = Section(".comment", SectionFlag(0), b"GCC", 3)
    image = link([ObjectFile("a.o", [text(), comment])], SCRIPT)
    assert image.data == bytes(8)


def test_discarded_section() -> None:
    junk = text(name=".junk")
    image = link([ObjectFile("a.o", [text(), junk])], SCRIPT)
    assert [piece.section for piece in image.discarded] == [".junk"]
    with pytest.raises(ObjectError, match=r"far is used, but its section \.junk is discarded"):
        link([wanting(RelocationKind.R_386_32), having("far", junk)], SCRIPT)


def test_overlap_names_both_ranges() -> None:
    script = parse_script("SECTIONS { .text 0 : { *(.text) } .data 4 : { *(.data) } }")
    objects = [ObjectFile("a.o", [text(), Section(".data", A | W, b"1", 1)])]
    with pytest.raises(OverlapError, match=r"\.text \[0x0, 0x8\) and \.data \[0x4, 0x5\)"):
        link(objects, script)


def test_image_over_its_size() -> None:
    objects = [ObjectFile("a.o", [text()])]
    assert len(link(objects, SCRIPT, size_limit=8).data) == 8
    with pytest.raises(ImageSizeError, match="image is 8 bytes, at most 7 are allowed"):
        link(objects, SCRIPT, size_limit=7)


def test_failed_assertion_has_line_and_text() -> None:
    script = parse_script(
        'SECTIONS { .text : { *(.text) } }\nASSERT(SIZEOF(.text) == 9, "nine")', "s.ld"
    )
    with pytest.raises(AssertionFailedError, match=r"s\.ld:2: assertion failed: nine"):
        link([ObjectFile("a.o", [text()])], script)


def test_location_counter_cannot_go_back() -> None:
    script = parse_script("SECTIONS { .text : { *(.text) . = 4; } }", "s.ld")
    with pytest.raises(ScriptError, match=r"s\.ld:1: .* of \.text moves back from 0x8 to 0x4"):
        link([ObjectFile("a.o", [text()])], script)


def test_undefined_symbol_in_the_script() -> None:
    with pytest.raises(UndefinedSymbolError, match=r"s\.ld:1: undefined symbol nowhere"):
        link([], parse_script("x = nowhere + 1;", "s.ld"))


def test_entry_and_forward_references() -> None:
    script = parse_script(
        "ENTRY(far) first = last - 4; SECTIONS { .text : { *(.text) last = .; } }"
    )
    image = link([having()], script)
    assert image.entry == 0
    assert image.symbols["first"] == 0
    with pytest.raises(UndefinedSymbolError, match="undefined symbol far"):
        link([], script)


def test_provide_only_where_wanted() -> None:
    script = parse_script("PROVIDE(far = 5); PROVIDE(other = 6); SECTIONS { .text : { *(.text) } }")
    image = link([wanting(RelocationKind.R_386_32)], script)
    assert image.symbols == {"far": 5}
    assert "far" in link([having()], script).symbols


def test_nobits_at_the_end_takes_no_bytes() -> None:
    script = parse_script("SECTIONS { .text : { *(.text) } .bss : { *(.bss) } end = .; }")
    bss = Section(".bss", A | W, b"", 32, 16, nobits=True)
    image = link([ObjectFile("a.o", [text(b"12345678"), bss])], script)
    assert image.data == b"12345678"
    assert image.symbols["end"] == 48
    assert image.section(".bss").nobits
    with pytest.raises(KeyError):
        image.section(".other")
