from pathlib import Path

import pytest

from rombuilder.assembler import assemble_text
from rombuilder.errors import AssemblyError


def data(text: str, **symbols: int) -> bytes:
    """The bytes of a text of .byte lines."""
    return assemble_text(text, symbols=symbols).section(".text").data


def test_macro_arguments() -> None:
    text = """
        .macro T a, b=2, c:req, d:vararg
        .byte \\a, \\b, \\c, \\d
        .endm
        T 1, c=3, d=4
        T 1,,3, 4, 5
        T 7 8 9 10
    """
    assert data(text) == bytes([1, 2, 3, 4, 1, 2, 3, 4, 5, 7, 8, 9, 10])


def test_macro_text_substitution() -> None:
    text = """
        .macro N name
        .byte v_\\name\\()_x
        l\\@: .byte \\@
        .endm
        N one
        N one
    """
    assert data(text, v_one_x=9) == bytes([9, 0, 9, 1])


def test_arguments_may_hold_operators() -> None:
    text = ".macro B a b\n.byte \\a, \\b\n.endm\nB 1 + 2 (3 + 4)\nB 1, 2 - 1\n"
    assert data(text) == bytes([3, 7, 1, 1])


def test_nested_macros_and_repetition() -> None:
    text = """
        .macro INNER x
        .byte \\x
        .endm
        .macro OUTER x
        INNER \\x
        .rept 2
        INNER \\x + 1
        .endr
        .endm
        OUTER 1
        .irp v, 5, 6
        INNER \\v
        .endr
    """
    assert data(text) == bytes([1, 2, 2, 5, 6])


@pytest.mark.parametrize(("value", "expected"), [(0, 10), (1, 11), (2, 12), (3, 13)])
def test_conditions(value: int, expected: int) -> None:
    text = """
        .if V == 0
        .byte 10
        .elseif V == 1
        .byte 11
        .elseif V == 2
        .if 0
        .byte 99
        .else
        .byte 12
        .endif
        .else
        .byte 13
        .endif
    """
    assert data(text, V=value) == bytes([expected])


def test_conditions_on_symbols_and_texts() -> None:
    text = """
        .set HERE, 1
        .ifdef HERE
        .byte 1
        .endif
        .ifndef AWAY
        .byte 2
        .endif
        .macro M a
        .ifb \\a
        .byte 3
        .endif
        .ifnb \\a
        .byte 4
        .endif
        .ifc \\a, x
        .byte 5
        .endif
        .ifnc \\a, x
        .byte 6
        .endif
        .endm
        M
        M x
    """
    assert data(text) == bytes([1, 2, 3, 6, 4, 5])


def test_code_that_is_not_assembled_is_not_looked_at() -> None:
    assert (
        data('.if 0\n.if undefined\n nonsense %%\n.else\n.error "no"\n.endif\n.endif\n.byte 1')
        == b"\1"
    )


def test_includes(tmp_path: Path) -> None:
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc" / "a.inc").write_text('.include "b.inc"\n.byte A\n')
    (tmp_path / "inc" / "b.inc").write_text(".set A, 5\n")
    text = '.include "a.inc"\n.byte A + 1\n'
    obj = assemble_text(text, include_dirs=[tmp_path / "inc"])
    assert obj.section(".text").data == bytes([5, 6])


def test_include_errors(tmp_path: Path) -> None:
    (tmp_path / "a.inc").write_text('\n.include "b.inc"\n')
    (tmp_path / "b.inc").write_text('.include "a.inc"\n')
    with pytest.raises(AssemblyError, match=r"b\.inc:1: a\.inc includes itself \(included, from"):
        assemble_text('.include "a.inc"', include_dirs=[tmp_path])
    with pytest.raises(AssemblyError, match=r"text\.S:1: cannot find 'c\.inc' in"):
        assemble_text('.include "c.inc"', include_dirs=[tmp_path])
    with pytest.raises(AssemblyError, match=r'wants a "file name", not c'):
        assemble_text(".include c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".if 1", r"text\.S:1: \.if without \.endif"),
        ("nop\n.endif", r"text\.S:2: \.endif without \.if"),
        (".if 0\n.else\n.else\n.endif", r"text\.S:3: \.else after \.else"),
        (".macro\n.endm", r"\.macro without a name"),
        (".macro a\nnop", r"text\.S:1: \.macro without \.endm"),
        (".endm", r"\.endm without \.macro"),
        (".endr", r"\.endr without \.irp or \.rept"),
        (".rept -1\n.endr", r"\.rept -1: expected 0 to"),
        (".macro a\n.endm\n.macro a\n.endm", r"text\.S:3: macro a is already defined at text\.S:1"),
        (".macro a x\n.endm\na 1, 2", r"text\.S:3: macro a takes 1 arguments, '2' is one too many"),
        (".macro a x:req\n.endm\na", r"macro a: the argument x is missing"),
        (".macro a 1x\n.endm", r"macro a: bad parameter '1x'"),
        (".macro a\na\n.endm\na", "expansions nested more than 64 deep"),
        (".if later\n.endif\n.set later, 1", "'later' must be known here, but later is not"),
        (".ifc a\n.endif", r"\.ifc compares two texts"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(AssemblyError, match=message):
        assemble_text(text)


def test_an_error_in_a_macro_names_body_and_call() -> None:
    text = ".macro a\n nop\n bad \\@\n.endm\n.macro b\na\n.endm\n\nb\n"
    with pytest.raises(
        AssemblyError,
        match=r"^text\.S:3: .*: bad 1 \(in macro a, from text\.S:6; in macro b, from text\.S:9\)$",
    ):
        assemble_text(text)
