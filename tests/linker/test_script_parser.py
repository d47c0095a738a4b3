import pytest

from linker.errors import ScriptError
from linker.script import (
    Assignment,
    BinaryNode,
    Condition,
    Entry,
    InputStatement,
    Literal,
    NameNode,
    OutputSection,
)
from linker.script_parser import parse_script


def only_section(text: str) -> OutputSection:
    (statement,) = parse_script(f"SECTIONS {{ {text} }}").statements
    assert isinstance(statement, OutputSection)
    return statement


def test_output_section_in_full() -> None:
    section = only_section(
        ".data start + 4 : ALIGN(16) { a = .; KEEP(*(.data .data.*)) x.o(.foo) BYTE(1); } =0x9066"
    )
    assert section.name == ".data"
    assert section.address == BinaryNode("+", NameNode("start", 1), Literal(4), 1)
    assert section.alignment == Literal(16)
    assert section.fill == b"\x90\x66"
    patterns = [s.pattern for s in section.statements if isinstance(s, InputStatement)]
    assert [(p.file, p.sections) for p in patterns] == [
        ("*", (".data", ".data.*")),
        ("x.o", (".foo",)),
    ]


def test_numbers_and_precedence_are_those_of_c() -> None:
    (statement,) = parse_script("x = 1 + 2K << 1 ? 0x10 : 3M;").statements
    assert isinstance(statement, Assignment)
    value = statement.value
    assert isinstance(value, Condition)
    assert value.test == BinaryNode(
        "<<", BinaryNode("+", Literal(1), Literal(2048), 1), Literal(1), 1
    )
    assert (value.then, value.otherwise) == (Literal(16), Literal(3 << 20))


def test_compound_assignment_and_entry() -> None:
    script = parse_script("ENTRY(start)\nOUTPUT_ARCH(i386)\nx += 4;")
    assert script.statements == (
        Entry("start", 1),
        Assignment("x", BinaryNode("+", NameNode("x", 3), Literal(4), 3), 3),
    )


@pytest.mark.parametrize(
    ("fill", "expected"),
    [("0x90", b"\x90"), ("0x123", b"\x01\x23"), ("144", b"\0\0\0\x90"), ("(1)", b"\0\0\0\x01")],
)
def test_fill(fill: str, expected: bytes) -> None:
    assert only_section(f".a : {{ *(.a) }} ={fill}").fill == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MEMORY { }", r"s\.ld:1: MEMORY is not supported"),
        ("\nSECTIONS { .a : { *(SORT(.a)) } }", r"s\.ld:2: SORT is not supported"),
        ("SECTIONS { .a : { *(.a) } > ram }", "memory regions and segments"),
        ("SECTIONS { .a : SUBALIGN(4) { *(.a) } }", "SUBALIGN is not supported"),
        ("SECTIONS { .a : { x.o } }", r"x\.o without \(sections\) is not supported"),
        ("SECTIONS { .a : { *(.a) }", "expected"),
        ("x = LOADADDR(.a);", "the function LOADADDR is not supported"),
        ("x = 1", "expected ';', found 'the end'"),
        ("x = ALIGN(1, 2, 3);", "ALIGN takes 1 to 2 arguments"),
        ("/* never", "the comment never ends"),
        ("SECTIONS { OVERLAY : { } }", "OVERLAY is not supported"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        parse_script(text, "s.ld")
