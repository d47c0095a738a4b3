from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rombuilder.errors import AssemblyError, BuildError
from rombuilder.source_text import read_source, split_arguments, split_label, split_statements


def statements(text: str) -> list[tuple[int, str]]:
    return [(s.origin.line, s.text) for s in split_statements(text, Path("a.S"))]


def test_comments_and_separators() -> None:
    assert statements(
        "nop # one\n"
        "cli; sti // two\n"
        "/* a\n comment */ hlt\n"
        '\n.ascii "a#b;c//d/*e*/\\"" ; mov $\'#, %al\n'
        "mov $4/2, %eax\n"
    ) == [
        (1, "nop"),
        (2, "cli"),
        (2, "sti"),
        (4, "hlt"),
        (6, '.ascii "a#b;c//d/*e*/\\""'),
        (6, "mov $'#, %al"),
        (7, "mov $4/2, %eax"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [('nop\n.ascii "x', r"a\.S:2: the string never"), ("/* x\n", r"a\.S:1: the comment never")],
)
def test_what_never_ends(text: str, message: str) -> None:
    with pytest.raises(AssemblyError, match=message):
        statements(text)


def test_labels() -> None:
    assert split_label("foo: bar: nop") == ("foo", "bar: nop")
    assert split_label("1:") == ("1", "")
    assert split_label("mov %cs:(%eax), %ecx") == (None, "mov %cs:(%eax), %ecx")


def test_arguments() -> None:
    assert split_arguments("4(%eax,%ecx,8), $'," + ', "a,b"') == ["4(%eax,%ecx,8)", "$',", '"a,b"']
    assert split_arguments("  ") == []
    assert split_arguments("4,,15") == ["4", "", "15"]


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.S"
    path.write_bytes(b"nop\n# caf\xc3\xa9\n")
    with pytest.raises(AssemblyError, match=r"a\.S:2: byte 0xc3 is not ASCII"):
        read_source(path)
    with pytest.raises(BuildError, match=r"b\.S: No such file"):
        read_source(tmp_path / "b.S")


@given(st.text(alphabet="ab\n;#/*\"'\\ ", max_size=30))
def test_any_text_is_split_or_refused(text: str) -> None:
    try:
        found = statements(text)
    except AssemblyError:
        return
    assert all(statement.strip() == statement != "" for _, statement in found)
    assert [line for line, _ in found] == sorted(line for line, _ in found)
