import lief

from linker.elf_image import write_executable
from linker.link import link
from linker.objects import Binding, ObjectFile, Section, SectionFlag, Symbol, SymbolKind
from linker.script_parser import parse_script

A, W, X = SectionFlag.ALLOC, SectionFlag.WRITE, SectionFlag.EXEC
SCRIPT = """
ENTRY(second)
SIZE = end - 0x1000;
SECTIONS {
  . = 0x1000;
  .text : { *(.text) }
  .data : { *(.data) }
  .bss : { *(.bss) }
  end = .;
}
"""


def parsed(base: int = 0) -> lief.ELF.Binary:
    text = Section(".text", A | X, bytes(range(32)), 32)
    data = Section(".data", A | W, b"12345678", 8, 4)
    bss = Section(".bss", A | W, b"", 64, 32, nobits=True)
    symbols = [
        Symbol("first", text, 0, Binding.GLOBAL),
        Symbol("inner", text, 4),
        Symbol("table", text, 8, kind=SymbolKind.OBJECT),
        Symbol("second", text, 16, Binding.GLOBAL),
        Symbol("sized", text, 20, Binding.GLOBAL, SymbolKind.FUNCTION, 2),
        Symbol("object", data, 4, Binding.GLOBAL),
        Symbol("zeros", bss, 0, Binding.GLOBAL),
        Symbol("number", None, 77, Binding.GLOBAL, absolute=True),
    ]
    image = link([ObjectFile("a.o", [text, data, bss], symbols)], parse_script(SCRIPT))
    binary = lief.ELF.parse(list(write_executable(image, base=base)))
    assert binary is not None
    return binary


def found(binary: lief.ELF.Binary) -> dict[str, tuple[int, int, str]]:
    return {
        str(symbol.name): (symbol.value, symbol.size, symbol.type.name)
        for symbol in binary.symtab_symbols
        if symbol.name
    }


def test_symbols_are_typed_and_sized() -> None:
    assert found(parsed()) == {
        "a.o": (0, 0, "FILE"),
        "first": (0x1000, 8, "FUNC"),
        "inner": (0x1004, 0, "NOTYPE"),
        "table": (0x1008, 8, "OBJECT"),
        "second": (0x1010, 4, "FUNC"),
        "sized": (0x1014, 2, "FUNC"),
        "object": (0x1024, 4, "OBJECT"),
        "zeros": (0x1040, 64, "OBJECT"),
        "number": (77, 0, "NOTYPE"),
        "SIZE": (0x80, 0, "NOTYPE"),
        "end": (0x1080, 0, "NOTYPE"),
    }


def test_a_base_moves_addresses_and_not_numbers() -> None:
    binary = parsed(0xC0000000)
    assert binary.entrypoint == 0xC0001010
    symbols = found(binary)
    assert symbols["second"][0] == 0xC0001010
    assert symbols["end"][0] == 0xC0001080
    assert symbols["number"][0] == 77
    assert [section.virtual_address for section in binary.sections][1:4] == [
        0xC0001000,
        0xC0001020,
        0xC0001040,
    ]


def test_segments_load_what_the_sections_hold() -> None:
    binary = parsed()
    text, data, bss = binary.segments
    assert bytes(text.content) == bytes(range(32))
    assert bytes(data.content) == b"12345678"
    assert (bss.physical_size, bss.virtual_size) == (0, 64)
    for segment in binary.segments:
        assert segment.file_offset % 0x1000 == segment.virtual_address % 0x1000
