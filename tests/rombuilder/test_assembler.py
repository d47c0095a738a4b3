from pathlib import Path

import pytest

from linker.objects import Binding, ObjectFile, SectionFlag, SymbolKind
from rombuilder.assembler import assemble, assemble_text
from rombuilder.errors import AssemblyError


def relocations(obj: ObjectFile, section: str = ".text") -> list[tuple[int, str, str, int]]:
    return [
        (r.offset, r.kind.name, r.symbol.name, r.addend) for r in obj.section(section).relocations
    ]


def test_sections_symbols_and_flags() -> None:
    obj = assemble_text(
        """
        .global start, number
        .set number, 0x123
        .set private, 1
        start: ret
        .type start, @function
        .size start, . - start
        .Lhidden:
        .section .mine, "aw"
        here: .byte 1
        .bss
        .balign 16
        zeros: .skip 8
        .section .text
        after: nop
        """
    )
    assert [(s.name, s.size, s.alignment, s.nobits) for s in obj.sections] == [
        (".text", 2, 1, False),
        (".mine", 1, 1, False),
        (".bss", 8, 16, True),
    ]
    assert obj.section(".mine").flags == SectionFlag.ALLOC | SectionFlag.WRITE
    start = obj.symbol("start")
    assert (start.binding, start.kind, start.size) == (Binding.GLOBAL, SymbolKind.FUNCTION, 1)
    assert obj.symbol("after").value == 1
    assert (obj.symbol("number").absolute, obj.symbol("number").value) == (True, 0x123)
    named = {symbol.name for symbol in obj.symbols if symbol.kind != SymbolKind.SECTION}
    assert named == {"start", "after", "here", "zeros", "number"}
    with pytest.raises(KeyError):
        obj.symbol("private")


def test_references_that_the_linker_resolves() -> None:
    obj = assemble_text(
        """
        start:
            mov $far + 4, %eax
            mov table(,%eax,4), %ecx
        1:  lea table - 1b(%edx), %ecx
            lea far - 1b(%edx), %ecx
            call far
            movw $far, %ax
        .section .rodata
        table:
            .long start, table + 4
            .long far - .
            .word far
            .byte far
        """
    )
    assert relocations(obj) == [
        (1, "R_386_32", "far", 4),
        (8, "R_386_32", ".rodata", 0),
        (14, "R_386_PC32", ".rodata", 2),
        (20, "R_386_PC32", "far", 8),
        (25, "R_386_PC32", "far", -4),
        (31, "R_386_16", "far", 0),
    ]
    assert relocations(obj, ".rodata") == [
        (0, "R_386_32", ".text", 0),
        (4, "R_386_32", ".rodata", 4),
        (8, "R_386_PC32", "far", 0),
        (12, "R_386_16", "far", 0),
        (14, "R_386_8", "far", 0),
    ]


def test_references_within_a_section_are_resolved_here() -> None:
    obj = assemble_text(
        "start: call end\n add $end - start, %eax\n .word end - start\nend: jmp start"
    )
    assert obj.section(".text").relocations == []
    expected = "e8 07 00 00 00 05 0c 00 00 00 0c 00 eb f2"
    assert obj.section(".text").data.hex(" ") == expected


def test_16_bit_code() -> None:
    obj = assemble_text(".code16\nstart: mov far, %al\n jmp far\n call start\n.code32\n nop")
    assert obj.section(".text").data.hex(" ") == "a0 00 00 e9 00 00 e8 f7 ff 90"
    assert relocations(obj) == [(1, "R_386_16", "far", 0), (4, "R_386_PC16", "far", -2)]


def test_branches_grow_as_needed() -> None:
    near = assemble_text("a: jmp b\n .skip 127\nb: je a\n")
    assert near.section(".text").data[:2] == b"\xeb\x7f"
    assert near.section(".text").data[129:] == bytes.fromhex("0f84 79ffffff")
    far = assemble_text("jmp b\n .skip 128\nb:\n")
    assert far.section(".text").data[:5] == bytes.fromhex("e9 80000000")


def test_growing_branches_push_each_other() -> None:
    text = "".join(f"j{i}: jmp e{i}\n" for i in range(40)) + ".skip 50\n"
    text += "".join(f"e{i}: jmp j{i}\n" for i in range(40))
    obj = assemble_text(text)
    code = obj.section(".text").data
    assert len(code) > 50 + 80 * 2
    for i in range(40):
        at, to = obj.symbol(f"j{i}").value, obj.symbol(f"e{i}").value
        size, width = (2, 1) if code[at] == 0xEB else (5, 4)
        distance = int.from_bytes(code[at + size - width : at + size], "little", signed=True)
        assert at + size + distance == to


def test_local_labels() -> None:
    code = assemble_text("1: jmp 1f\n jmp 1b\n1: jmp 1b\n2: jmp 2b\n").section(".text").data
    assert code == bytes.fromhex("eb02 ebfc ebfe ebfe")


def test_alignment_and_fill() -> None:
    obj = assemble_text(
        "nop\n.p2align 2\nret\n.balign 4, 0xcc\n.org 10, 0xff\n.balign 16,,3\n"
        ".data\n.byte 1\n.balign 4\n.fill 2, 2, 0x1234\n.space 2, 7\n"
    )
    assert obj.section(".text").data == bytes.fromhex("90 0f1f00 c3 cccccc ffff")
    assert obj.section(".text").alignment == 16
    assert obj.section(".data").data == bytes.fromhex("01 000000 3412 3412 0707")


def test_sizes_may_depend_on_labels() -> None:
    obj = assemble_text("a: nop\n .skip 8 - (. - a)\nb: .long later\n.set later, c - b\nc:")
    assert obj.section(".text").data == b"\x90" + bytes(7) + bytes([4, 0, 0, 0])


def test_data_directives() -> None:
    obj = assemble_text(
        '.byte -1, 255, \'a\n.word 0x1234\n.long -2\n.quad 1\n.asciz "a\\n", "\\x41\\102\\0"\n'
    )
    expected = "ff ff 61 34 12 fe ff ff ff 01 00 00 00 00 00 00 00 61 0a 00 41 42 00 00"
    assert obj.section(".text").data == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n movv %eax, (%edx)", r"text\.S:2: unknown mnemonic.*: movv %eax, \(%edx\)"),
        ("mov %eax", r"text\.S:1: unknown mnemonic, or one that does not take"),
        ("push %foo", r"text\.S:1: .*: push %foo"),
        ("*", r"'\*' is no instruction"),
        ("mov $, %eax", r"malformed operand \$: mov \$, %eax"),
        ("mov ,%eax", "malformed operand nothing"),
        ("invlpg (%e'ax)", r"malformed operand \(%e'ax\)"),
        (".frob", "unknown directive .frob"),
        (".section .odd", 'section .odd needs flags, such as .section .odd,"a"'),
        ('.section .x,"aq"', "unknown section flag 'q'"),
        ('.section .x,"a",@note', "unknown section type 'note'"),
        ('.section .x,"a"\n.section .x,"aw"', r"text\.S:2: section .x had other flags"),
        ("a:\na:", r"text\.S:2: label a is already defined at text\.S:1"),
        ("a:\n.set a, 1", "a is a label, defined at"),
        (".set a, 1\na:", "a is a symbol with a value"),
        (".set a, a + 1", "a is set to a value that depends on itself"),
        (".set a, b\n.set b, a\n.long a", "depends on itself"),
        ("KNOWN = 3", "KNOWN is predefined"),
        ("jmp 1b", "there is no label 1: before this line"),
        ("jmp 0x1234", "relative branch to the number 0x1234"),
        (".byte 256", "0x100 does not fit in 8 bits"),
        (".byte b - a\na: .skip 300\nb:", r"text\.S:1: 0x12c does not fit in 8 bits"),
        (".quad a\na:", "an address in a field of 8 bytes"),
        (".long a + b\na:\n.data\nb:", "a field may hold one address"),
        (".long far - d\n.data\nd:", "a field may hold one address"),
        ("nop\n.org 0", r"\.org moves back by 1 bytes"),
        (".skip b - a\nb: nop\na:", "negative count"),
        (".skip far", "the count is not a plain number"),
        ("a: .skip b - a + 1\nb:", "bytes of filling|never settles"),
        (".skip 0x10000000", "bytes of filling"),
        (".org d\n.data\nd:", r"\.org to another section"),
        (".balign 3", "3 is not a power of two"),
        (".p2align 40", "expected 0 to 31"),
        (".bss\n.byte 1", r"section \.bss holds no bytes"),
        ("loop a\n.skip 200\na:", "target is 200 bytes away, 127 at most: loop a"),
        (".ascii x", 'expected a "string", not x'),
        ('.ascii "\\q"', r"unknown escape \\q"),
        ('.error "no such flavour"', r"text\.S:1: no such flavour"),
        ("nopl (%eax)", "Keystone cannot encode nopl"),
        ("mov $0x100000000, %eax", "0x100000000 does not fit in 32 bits"),
        ("ljmp $8, %eax", r"ljmp takes \$selector, \$offset"),
        (".type a, @odd", "unknown symbol type 'odd'"),
        (".fill 1, 9", "expected 1 to 8"),
        (".long", ".long without a value"),
        ("callw far", "callw is not supported in 32-bit code"),
    ],
)
def test_errors_name_file_and_line(text: str, message: str) -> None:
    with pytest.raises(AssemblyError, match=message):
        assemble_text(text, symbols={"KNOWN": 1})


def test_an_object_is_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mmu.S"
    path.write_text("ret\n")
    assert assemble(path, symbols={}).name == "mmu.o"
    path.write_text("ret\n bad\n")
    with pytest.raises(AssemblyError, match=r"mmu\.S:2: unknown mnemonic"):
        assemble(path, symbols={})
