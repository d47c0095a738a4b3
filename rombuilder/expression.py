"""Expressions of the assembly dialect: reading them and computing them.

Operators, precedences and the truth value -1 are those of the GNU assembler
(manual, section "Infix Operators"): shifts and products bind tightest, then
`| & ^`, then sums, then comparisons, then `&&` and `||`. Values are linear: a
number plus any count of labels, since most labels get their address from the
linker. Labels of one section cancel out in a difference.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = [
    "Binary",
    "Expression",
    "ExpressionError",
    "Name",
    "Number",
    "Unary",
    "Value",
    "names_in",
    "parse",
    "substitute",
]


class ExpressionError(ValueError):
    """An expression is malformed or cannot be computed; names no place."""


@dataclass(frozen=True, slots=True)
class Number:
    """A literal."""

    value: int


@dataclass(frozen=True, slots=True)
class Name:
    """A symbol, a label or, as ".", the current address."""

    name: str


@dataclass(frozen=True, slots=True)
class Unary:
    """One of `- + ~ !` applied to an operand."""

    operator: str
    operand: "Expression"


@dataclass(frozen=True, slots=True)
class Binary:
    """An infix operator applied to two operands."""

    operator: str
    left: "Expression"
    right: "Expression"


Expression = Number | Name | Unary | Binary

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+(?![0-9a-zA-Z_]))
    | (?P<local>\d+[bf])(?![0-9a-zA-Z_$.])
    | (?P<decimal>\d+)(?![0-9a-zA-Z_$.])
    | (?P<char>'(?:\\.|[^\\])'?)
    | (?P<name>[A-Za-z_.][A-Za-z0-9_.$]*)
    | (?P<operator><<|>>|==|!=|<>|<=|>=|&&|\|\||[-+*/%&|^~!<>()])
    )""",
    re.VERBOSE,
)

_RANKS = (
    ("||",),
    ("&&",),
    ("==", "!=", "<>", "<", ">", "<=", ">="),
    ("+", "-"),
    ("|", "&", "^", "!"),
    ("*", "/", "%", "<<", ">>"),
)
_RANK = {operator: rank for rank, operators in enumerate(_RANKS) for operator in operators}

ESCAPES = {"n": 10, "t": 9, "r": 13, "b": 8, "f": 12, "0": 0, "\\": 92, "'": 39, '"': 34}
"""What follows a backslash in a character or string literal, octal and hex aside."""


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise ExpressionError(f"cannot read {stripped[position:].strip()!r} in an expression")
        kind = match.lastgroup
        assert kind is not None  # noqa: S101 (every alternative is a named group)
        tokens.append((kind, match.group(kind)))
        position = match.end()
    return tokens


def _decimal(text: str) -> int:
    if len(text) > 1 and text[0] == "0":
        try:
            return int(text, 8)
        except ValueError:
            raise ExpressionError(f"{text!r} is not an octal number") from None
    return int(text)


def _char(text: str) -> int:
    body = text[1:-1] if len(text) > 2 and text.endswith("'") else text[1:]
    if body[0] != "\\":
        return ord(body)
    if body[1:] not in ESCAPES:
        raise ExpressionError(f"unknown escape in the character {text}")
    return ESCAPES[body[1:]]


_LITERALS: Mapping[str, Callable[[str], int]] = {
    "number": lambda text: int(text, 0),
    "decimal": _decimal,
    "char": _char,
}


@dataclass(slots=True)
class _Parser:
    text: str
    local: Callable[[str], str]
    tokens: list[tuple[str, str]] = field(default_factory=list)
    position: int = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "")

    def next(self) -> tuple[str, str]:
        token = self.peek()
        self.position += 1
        return token

    def infix(self, rank: int) -> Expression:
        left = self.unary()
        while True:
            kind, operator = self.peek()
            found = _RANK.get(operator, -1) if kind == "operator" else -1
            if found < rank:
                return left
            self.next()
            left = Binary(operator, left, self.infix(found + 1))

    def unary(self) -> Expression:
        kind, token = self.next()
        if kind == "name":
            return Name(token)
        if kind == "local":
            return Name(self.local(token))
        if kind in _LITERALS:
            return Number(_LITERALS[kind](token))
        if token in ("-", "+", "~", "!"):
            return Unary(token, self.unary())
        if token != "(":  # noqa: S105 (a parenthesis, not a password)
            raise ExpressionError(f"expected a value in {self.text.strip()!r}")
        inner = self.infix(0)
        if self.next()[1] != ")":
            raise ExpressionError(f"missing ) in {self.text.strip()!r}")
        return inner


def _no_locals(token: str) -> str:
    raise ExpressionError(f"the local label {token} cannot be used here")


def parse(text: str, local: Callable[[str], str] = _no_locals) -> Expression:
    """Read an expression; `local` turns `1b` or `1f` into a label's name.

    Raises `ExpressionError`.
    """
    parser = _Parser(text, local, _tokens(text))
    expression = parser.infix(0)
    kind, token = parser.peek()
    if kind != "end":
        raise ExpressionError(f"unexpected {token!r} in {text.strip()!r}")
    return expression


def names_in(expression: Expression) -> set[str]:
    """Every name that the expression uses."""
    match expression:
        case Name(name):
            return {name}
        case Unary(_, operand):
            return names_in(operand)
        case Binary(_, left, right):
            return names_in(left) | names_in(right)
    return set()


def substitute(expression: Expression, values: Mapping[str, Expression]) -> Expression:
    """The expression with every name that `values` knows replaced."""
    match expression:
        case Name(name):
            return values.get(name, expression)
        case Unary(operator, operand):
            return Unary(operator, substitute(operand, values))
        case Binary(operator, left, right):
            return Binary(operator, substitute(left, values), substitute(right, values))
    return expression


@dataclass(frozen=True, slots=True)
class Value:
    """`constant` plus the sum of `terms`, each a place or symbol with its count.

    A term is ("section", name) for the start of a section of this object, with the
    label's offset already in `constant`, or ("symbol", name) for a symbol that is
    defined elsewhere. Counts are never zero.
    """

    constant: int
    terms: tuple[tuple[tuple[str, str], int], ...] = ()

    def plus(self, other: "Value", sign: int = 1) -> "Value":
        """The sum, or with `sign` -1 the difference."""
        counts = dict(self.terms)
        for term, count in other.terms:
            counts[term] = counts.get(term, 0) + sign * count
        terms = tuple((term, count) for term, count in counts.items() if count)
        return Value(self.constant + sign * other.constant, terms)

    def number(self, operator: str) -> int:
        """The value as a plain number, which `operator` needs; raises `ExpressionError`."""
        if self.terms:
            name = self.terms[0][0][1]
            raise ExpressionError(f"{operator!r} needs numbers, but {name} is an address")
        return self.constant

    @classmethod
    def of(cls, expression: Expression, resolve: Callable[[str], "Value"]) -> "Value":
        """Compute; `resolve` answers for names. Raises `ExpressionError`."""
        match expression:
            case Number(value):
                return cls(value)
            case Name(name):
                return resolve(name)
            case Unary(operator, operand):
                return _unary(operator, cls.of(operand, resolve))
            case Binary(operator, left, right):
                return _binary(operator, cls.of(left, resolve), cls.of(right, resolve))


def _unary(operator: str, operand: Value) -> Value:
    if operator == "+":
        return operand
    if operator == "-":
        return Value(0).plus(operand, -1)
    number = operand.number(operator)
    return Value(~number if operator == "~" else int(not number))


def _divide(left: int, right: int) -> int:
    if right == 0:
        raise ExpressionError("division by zero")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _shift(left: int, right: int) -> int:
    if not -64 < right < 64:
        raise ExpressionError(f"shift by {right} bits")
    return left << right if right >= 0 else left >> -right


# The GNU assembler's comparisons answer -1 for true, its && and || answer 1.
_OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": lambda a, b: a - b * _divide(a, b),
    "<<": _shift,
    ">>": lambda a, b: _shift(a, -b),
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "!": lambda a, b: a | ~b,
    "==": lambda a, b: -(a == b),
    "!=": lambda a, b: -(a != b),
    "<>": lambda a, b: -(a != b),
    "<": lambda a, b: -(a < b),
    ">": lambda a, b: -(a > b),
    "<=": lambda a, b: -(a <= b),
    ">=": lambda a, b: -(a >= b),
    "&&": lambda a, b: int(bool(a) and bool(b)),
    "||": lambda a, b: int(bool(a) or bool(b)),
}


def _binary(operator: str, left: Value, right: Value) -> Value:
    if operator in ("+", "-"):
        return left.plus(right, 1 if operator == "+" else -1)
    if operator == "*" and not left.terms and left.constant == 1:
        return right
    difference = left.plus(right, -1)
    if operator in ("==", "!=", "<>", "<", ">", "<=", ">=") and not difference.terms:
        # Two labels of one section compare by their distance.
        return Value(_OPERATIONS[operator](difference.constant, 0))
    return Value(_OPERATIONS[operator](left.number(operator), right.number(operator)))
