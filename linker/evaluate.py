"""Computing linker script expressions by GNU ld's rules.

A value is a plain number, an absolute address, or an address relative to an output
section (ld manual, "The Section of an Expression"). Which of them decides what an
operator works on: inside an output section `. = 0x80` means 0x80 from its start.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from linker.errors import ScriptError
from linker.script import BinaryNode, Call, Condition, Literal, NameNode, Node, UnaryNode

__all__ = ["Amount", "Evaluator", "HasAddress"]


class HasAddress(Protocol):
    """An output section, as far as computing needs it."""

    @property
    def address(self) -> int:
        """Where it starts."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A number; an absolute address; or, with `section`, an offset from its start."""

    value: int
    section: HasAddress | None = None
    absolute: bool = False

    @property
    def address(self) -> int:
        """The value as an address."""
        return self.value + (self.section.address if self.section is not None else 0)

    @property
    def is_number(self) -> bool:
        """Is it neither absolute nor relative?"""
        return self.section is None and not self.absolute


def align_up(value: int, alignment: int) -> int:
    """The next multiple of a power of two; 0 and 1 leave the value alone."""
    return value if alignment <= 1 else -(-value // alignment) * alignment


def _comparable(left: Amount, right: Amount) -> tuple[Amount, Amount]:
    """Both as absolute addresses where their offsets have nothing in common."""
    sections_differ = (
        left.section is not None and right.section is not None
    ) and left.section is not right.section
    mixed = (left.section is None) != (right.section is None) and (left.absolute or right.absolute)
    if sections_differ or mixed:
        return Amount(left.address, absolute=True), Amount(right.address, absolute=True)
    return left, right


_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "&&": lambda a, b: bool(a) and bool(b),
    "||": lambda a, b: bool(a) or bool(b),
}
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
}


@dataclass(slots=True)
class Evaluator:
    """Computes nodes; the callbacks know symbols and sections.

    `section` is the output section being laid out, or None between them. `dot` is
    the location counter.
    """

    script: str
    lookup: Callable[[NameNode], Amount]
    size_of: Callable[[str], int]
    address_of: Callable[[str, int], Amount]
    is_defined: Callable[[str], bool]
    dot: Amount
    section: HasAddress | None = None

    def value(self, node: Node) -> Amount:
        """The node's value; raises `ScriptError`."""
        match node:
            case Literal(value):
                amount = Amount(value)
            case NameNode("."):
                amount = self.dot
            case NameNode():
                amount = self.lookup(node)
            case Condition(test, then, otherwise):
                amount = self.value(then if self.value(test).value else otherwise)
            case UnaryNode(operator, operand):
                amount = self._unary(operator, self.value(operand))
            case BinaryNode():
                amount = self._binary(node, self.value(node.left), self.value(node.right))
            case Call():
                amount = self._call(node)
        return amount

    def _unary(self, operator: str, operand: Amount) -> Amount:
        if operator == "!":
            return Amount(int(not operand.value))
        value = -operand.value if operator == "-" else ~operand.value
        return Amount(value, operand.section, operand.absolute)

    def _binary(self, node: BinaryNode, left: Amount, right: Amount) -> Amount:
        left, right = _comparable(left, right)
        operator = node.operator
        if operator in _COMPARISONS:
            return Amount(int(_COMPARISONS[operator](left.value, right.value)))
        if operator in ("/", "%") and right.value == 0:
            raise ScriptError(self.script, node.line, "division by zero")
        if operator in ("<<", ">>") and not 0 <= right.value < 64:
            raise ScriptError(self.script, node.line, f"shift by {right.value} bits")
        value = _ARITHMETIC[operator](left.value, right.value)
        if left.section is not None and right.section is not None:
            return Amount(value)
        section = left.section or right.section
        if left.absolute and right.absolute:
            return Amount(value, absolute=self.section is None)
        return Amount(value, section, left.absolute or right.absolute)

    def _call(self, node: Call) -> Amount:
        name = node.function
        arguments = node.arguments
        if name in ("SIZEOF", "ADDR", "DEFINED"):
            named = arguments[0]
            assert isinstance(named, NameNode)  # noqa: S101 (so the parser built it)
            if name == "SIZEOF":
                return Amount(self.size_of(named.name))
            if name == "ADDR":
                return self.address_of(named.name, node.line)
            return Amount(int(self.is_defined(named.name)))
        values = [self.value(argument) for argument in arguments]
        if name == "ABSOLUTE":
            return Amount(values[0].address, absolute=True)
        if name in ("MAX", "MIN"):
            choose = max if name == "MAX" else min
            return choose(*_comparable(values[0], values[1]), key=lambda amount: amount.value)
        return self._align(node, values)

    def _align(self, node: Call, values: list[Amount]) -> Amount:
        boundary = values[-1].value
        if boundary < 0 or boundary & (boundary - 1):
            raise ScriptError(self.script, node.line, f"ALIGN({boundary:#x}): no power of two")
        base = values[0] if len(values) == 2 else self.dot
        if base.section is not None or len(values) == 1:
            address = align_up(base.address, boundary)
            if base.section is not None:
                return Amount(address - base.section.address, base.section)
            return Amount(address, absolute=True)
        return Amount(align_up(base.value, boundary), absolute=base.absolute)
