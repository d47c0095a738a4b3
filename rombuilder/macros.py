"""Macros: their definition lines, their arguments, and the text they expand to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rombuilder.errors import AssemblyError
from rombuilder.origin import Origin
from rombuilder.source_text import Statement, split_arguments, split_statements

__all__ = ["MAX_DEPTH", "Macro", "expand"]

MAX_DEPTH = 64
"""Nested expansions and inclusions; more means a macro that calls itself for ever."""

_PARAMETER = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::(req|vararg))?(?:=(.*))?$", re.DOTALL)
_SUBSTITUTION = re.compile(r"\\(?:\(\)|(@)|([A-Za-z_][A-Za-z0-9_]*))")
_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*=(?!=)(.*)$", re.DOTALL)
_PART = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\\])\'?|\s+|.', re.DOTALL)
_OPERATORS = frozenset("+-*/%&|^~!<>=:")


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    default: str
    required: bool
    variable: bool


@dataclass(frozen=True, slots=True)
class Macro:
    """A macro as defined, body unexpanded."""

    name: str
    parameters: tuple[_Parameter, ...]
    body: tuple[Statement, ...]
    origin: Origin

    @classmethod
    def define(cls, header: Statement, body: list[Statement]) -> "Macro":
        """From `.macro name params` and its body; raises `AssemblyError`."""
        name, _, text = header.rest.replace(",", " ", 1).partition(" ")
        if not name:
            raise AssemblyError(header.origin, ".macro without a name")
        parameters = []
        for piece in _split(text):
            match = _PARAMETER.match(piece.text)
            if match is None:
                raise AssemblyError(header.origin, f"macro {name}: bad parameter {piece.text!r}")
            parameters.append(
                _Parameter(
                    match[1], _unquote(match[3] or ""), match[2] == "req", match[2] == "vararg"
                )
            )
        return cls(name, tuple(parameters), tuple(body), header.origin)

    def bind(self, call: Statement) -> dict[str, str]:
        """The arguments of a call by parameter name; raises `AssemblyError`."""
        values: dict[str, str] = {}
        names = [parameter.name for parameter in self.parameters]
        position = 0
        for piece in _split(call.rest):
            named = _NAMED.match(piece.text)
            if named is not None and named[1] in names:
                values[named[1]] = _unquote(named[2].strip())
                continue
            if position >= len(self.parameters):
                raise AssemblyError(
                    call.origin,
                    f"macro {self.name} takes {len(names)} arguments, "
                    f"{piece.text!r} is one too many",
                )
            parameter = self.parameters[position]
            if parameter.variable:
                values[parameter.name] = call.rest[piece.start :]
                break
            if piece.text:
                values[parameter.name] = _unquote(piece.text)
            position += 1
        for parameter in self.parameters:
            if parameter.required and not values.get(parameter.name):
                raise AssemblyError(
                    call.origin, f"macro {self.name}: the argument {parameter.name} is missing"
                )
            values.setdefault(parameter.name, parameter.default)
        return values


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    start: int


def _split(text: str) -> list[_Piece]:
    """Arguments, separated by commas or, where no operator stands, by blanks."""
    pieces = [_Piece("", 0)]
    depth = 0
    matches = list(_PART.finditer(text))
    for index, match in enumerate(matches):
        part = match.group()
        depth += (part == "(") - (part == ")")
        last = pieces[-1]
        following = matches[index + 1].group() if index + 1 < len(matches) else ""
        if part == "," and depth == 0:
            pieces.append(_Piece("", match.end()))
        elif part.isspace():
            separates = (
                depth == 0
                and last.text
                and last.text[-1] not in _OPERATORS
                and following
                and following not in _OPERATORS
                and following != ","
            )
            if separates:
                pieces.append(_Piece("", match.end()))
            elif last.text:
                pieces[-1] = _Piece(last.text + part, last.start)
            else:
                pieces[-1] = _Piece("", match.end())
        else:
            pieces[-1] = _Piece(last.text + part, last.start)
    stripped = [_Piece(piece.text.strip(), piece.start) for piece in pieces]
    return [] if len(stripped) == 1 and not stripped[0].text else stripped


def _unquote(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    return text


def _fill(text: str, values: Mapping[str, str], serial: int) -> str:
    def replacement(match: re.Match[str]) -> str:
        if match[1]:
            return str(serial)
        if match[2]:
            return values.get(match[2], match[0])
        return ""

    return _SUBSTITUTION.sub(replacement, text)


def expand(
    body: tuple[Statement, ...],
    values: Mapping[str, str],
    serial: int,
    call: Origin,
    reason: str,
) -> list[Statement]:
    r"""The body with arguments put in; `serial` replaces `\@`.

    Every resulting statement keeps the file and line of its body line and names the
    call as its parent. Raises `AssemblyError` for endless expansion.
    """
    if call.depth >= MAX_DEPTH:
        raise AssemblyError(call, f"expansions nested more than {MAX_DEPTH} deep")
    result = []
    for statement in body:
        origin = statement.origin
        if origin.parent is not None:
            # A body that itself came out of an expansion: the innermost line is what
            # helps, the rest of its history is the history of the call.
            origin = Origin(origin.path, origin.line)
        placed = Origin(origin.path, origin.line, call, reason)
        for part in split_statements(_fill(statement.text, values, serial), placed.path):
            result.append(Statement(part.text, placed))  # noqa: PERF401 (reads as two steps)
    return result


def loop_values(text: str) -> tuple[str, list[str]]:
    """The symbol and the values of `.irp symbol, values`."""
    first, *values = split_arguments(text) or [""]
    name, _, inline = first.partition(" ")
    if inline.strip():
        values.insert(0, inline.strip())
    return name, values or [""]
