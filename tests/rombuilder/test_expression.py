import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rombuilder.expression import ExpressionError, Name, Value, names_in, parse, substitute


def number(text: str, **values: int) -> int:
    return Value.of(parse(text), lambda name: Value(values[name])).number("test")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0x10 + 010 + 0b11 + 10", 16 + 8 + 3 + 10),
        ("1 << 4 | 2", 18),
        ("1 + 2 | 4", 1 + (2 | 4)),
        ("6 & 3 + 1", (6 & 3) + 1),
        ("2 + 3 * 4", 14),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("1 == 1", -1),
        ("1 != 1", 0),
        ("2 > 1 && 3", 1),
        ("0 || 0", 0),
        ("!5 + ~0", -1),
        ("'a' + '\\n'", 107),
        ("(1 + 2) * -3", -9),
        ("x * 2", 14),
        ("7 - 2 - 1", 4),
        ("1 >> 0 << 3", 8),
    ],
)
def test_values(text: str, expected: int) -> None:
    assert number(text, x=7) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a value"),
        ("1 +", "expected a value"),
        ("(1", "missing )"),
        ("1 2", "unexpected '2'"),
        ("09", "'09' is not an octal number"),
        ("@", "cannot read '@'"),
        ("1 / 0", "division by zero"),
        ("1 << 64", "shift by 64 bits"),
        ("1f", "local label 1f cannot be used here"),
        ("'\\q'", "unknown escape"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message.replace("(", r"\(").replace(")", r"\)")):
        number(text)


PLACES = {
    "a": Value(4, ((("section", ".text"), 1),)),
    "b": Value(20, ((("section", ".text"), 1),)),
    "d": Value(8, ((("section", ".data"), 1),)),
    "far": Value(0, ((("symbol", "far"), 1),)),
}


def test_labels_of_one_section_cancel() -> None:
    assert Value.of(parse("b - a + 1"), PLACES.__getitem__) == Value(17)
    assert Value.of(parse("(b - a) / 4"), PLACES.__getitem__) == Value(4)
    assert Value.of(parse("b > a"), PLACES.__getitem__) == Value(-1)


def test_labels_of_two_sections_stay() -> None:
    value = Value.of(parse("far - d + 2"), PLACES.__getitem__)
    assert value.constant == 2 - 8
    assert dict(value.terms) == {("symbol", "far"): 1, ("section", ".data"): -1}
    with pytest.raises(ExpressionError, match=r"'\*' needs numbers, but .text is an address"):
        Value.of(parse("a * 2"), PLACES.__getitem__)


def test_local_labels_are_renamed_when_read() -> None:
    assert parse("1b - 2f", lambda token: f"L{token}") == substitute(
        parse("x - y"), {"x": Name("L1b"), "y": Name("L2f")}
    )


def test_names() -> None:
    assert names_in(parse("a + (b.c << ~d) - 1")) == {"a", "b.c", "d"}


@given(st.text(alphabet="01x9abf()+-*/<>&|!~=' .$_", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        names_in(parse(text))
