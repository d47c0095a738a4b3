"""Source text into statements: comments dropped, separators split, labels taken off."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rombuilder.errors import AssemblyError, BuildError
from rombuilder.origin import Origin

__all__ = ["Statement", "read_source", "split_arguments", "split_label", "split_statements"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement with its place; never empty."""

    text: str
    origin: Origin

    @property
    def word(self) -> str:
        """The directive, mnemonic or macro name."""
        return self.text.split(None, 1)[0]

    @property
    def rest(self) -> str:
        """What follows the word."""
        parts = self.text.split(None, 1)
        return parts[1].strip() if len(parts) > 1 else ""


# What must be kept whole while looking for comments and separators. A quote that
# starts no complete character literal is left alone, as in `.macro` arguments.
_PIECE = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*")
      | (?P<char>'(?:\\.|[^\\\n])'?)
      | (?P<block>/\*.*?\*/)
      | (?P<comment>\#[^\n]*|//[^\n]*)
      | (?P<separator>;)
      | (?P<newline>\n)
      | (?P<open>/\*|")
      | (?P<other>[^"'/\#;\n]+|.)""",
    re.VERBOSE | re.DOTALL,
)

_LABEL = re.compile(r"([A-Za-z_.][A-Za-z0-9_.$]*|\d+)\s*:")


def split_statements(
    text: str, path: Path, parent: Origin | None = None, reason: str = ""
) -> Iterator[Statement]:
    """The statements of a source text, in order.

    Raises `AssemblyError` for a string or comment that never ends.
    """
    line = start = 1
    current = ""

    def finish() -> Iterator[Statement]:
        stripped = current.strip()
        if stripped:
            yield Statement(stripped, Origin(path, start, parent, reason))

    for match in _PIECE.finditer(text):
        kind, piece = match.lastgroup, match.group()
        if kind == "open":
            what = "string" if piece == '"' else "comment"
            raise AssemblyError(Origin(path, line, parent, reason), f"the {what} never ends")
        if kind in ("newline", "separator"):
            yield from finish()
            current = ""
        elif kind in ("block", "comment"):
            current += " "
        else:
            if not current.strip():
                start = line
            current += piece
        line += piece.count("\n")
    yield from finish()


def read_source(path: Path, parent: Origin | None = None, reason: str = "") -> list[Statement]:
    """Read a file. Raises `BuildError` when it cannot be read, `AssemblyError` for its text."""
    try:
        text = path.read_bytes().decode("ascii")
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise AssemblyError(
            Origin(path, line, parent, reason), f"byte {byte:#04x} is not ASCII"
        ) from None
    return list(split_statements(text, path, parent, reason))


def split_label(text: str) -> tuple[str | None, str]:
    """The label at the front of a statement, if any, and what follows it."""
    match = _LABEL.match(text)
    if match is None:
        return None, text
    return match.group(1), text[match.end() :].strip()


def split_arguments(text: str) -> list[str]:
    """Split at commas outside parentheses, strings and character literals."""
    arguments = [""]
    depth = 0
    for match in _PIECE.finditer(text):
        piece = match.group()
        if match.lastgroup in ("string", "char"):
            arguments[-1] += piece
            continue
        for character in piece:
            depth += (character == "(") - (character == ")")
            if character == "," and depth == 0:
                arguments.append("")
            else:
                arguments[-1] += character
    stripped = [argument.strip() for argument in arguments]
    return [] if stripped == [""] else stripped
