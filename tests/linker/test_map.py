from linker.link import link
from linker.map import render_map
from linker.objects import Binding, ObjectFile, Section, SectionFlag, Symbol
from linker.script_parser import parse_script


def test_map_lists_sections_pieces_and_symbols() -> None:
    flags = SectionFlag.ALLOC | SectionFlag.EXEC
    first = Section(".text", flags, bytes(5), 5)
    second = Section(".text.a_long_section_name", flags, bytes(4), 4, 4)
    objects = [
        ObjectFile("a.o", [first], [Symbol("start", first, 1, Binding.GLOBAL)]),
        ObjectFile("b.o", [second], [Symbol("hidden", second, 0)]),
        ObjectFile("c.o", [Section(".junk", flags, b"x", 1)]),
    ]
    script = parse_script(
        "SECTIONS { .text 0x100 : { *(.text*) } end = .; /DISCARD/ : { *(.junk) } }"
    )
    assert (
        render_map(link(objects, script))
        == """\
Discarded input sections

 .junk          0x00000000        0x1 c.o

Linker script and memory map

.text           0x00000100        0xc
 .text          0x00000100        0x5 a.o
                0x00000101                start
 .text.a_long_section_name
                0x00000108        0x4 b.o

Symbols outside all sections
                0x0000010c                end
"""
    )
