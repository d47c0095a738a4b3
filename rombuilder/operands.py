"""AT&T operands: where in `disp(base,index,scale)` or `$value` an expression stands."""

import re
from dataclasses import dataclass
from enum import Enum

__all__ = ["Operand", "OperandKind", "parse_operand"]


class OperandKind(Enum):
    """What an operand is."""

    REGISTER = "register"
    IMMEDIATE = "immediate"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand taken apart: `prefix`, an expression, `suffix`, to be joined again.

    `scale` is the expression of the index's scale; it goes where the suffix has "{}".
    """

    kind: OperandKind
    prefix: str = ""
    expression: str = ""
    suffix: str = ""
    scale: str = ""

    @property
    def indirect(self) -> bool:
        """Is this the `*` of an indirect branch?"""
        return self.prefix.startswith("*")

    @property
    def wide_address(self) -> bool:
        """Does the address use 32-bit registers?"""
        return "%e" in self.suffix


_SEGMENT = re.compile(r"(\*?\s*%[a-z]s\s*:)(.*)$", re.DOTALL)
_REGISTER = re.compile(r"\*?\s*%[a-z]+\d*(\(\d\))?$")


def _address(text: str) -> tuple[str, str]:
    """Split `disp(base,index,scale)` into displacement and the parenthesised rest."""
    if not text.endswith(")"):
        return text, ""
    depth = 0
    for index in range(len(text) - 1, -1, -1):
        depth += (text[index] == ")") - (text[index] == "(")
        if depth == 0:
            rest = text[index:]
            return (text[:index], rest) if "%" in rest else (text, "")
    return text, ""


def parse_operand(text: str) -> Operand:
    """Take one operand apart; never fails, what makes no sense fails later as an expression."""
    text = text.strip()
    if _REGISTER.match(text):
        return Operand(OperandKind.REGISTER, prefix=text)
    if text.startswith("$"):
        return Operand(OperandKind.IMMEDIATE, prefix="$", expression=text[1:].strip())
    prefix = ""
    segment = _SEGMENT.match(text)
    if segment is not None:
        prefix, text = segment[1].replace(" ", ""), segment[2].strip()
    elif text.startswith("*"):
        prefix, text = "*", text[1:].strip()
    displacement, registers = _address(text)
    scale = ""
    parts = registers[1:-1].split(",")
    if len(parts) == 3 and parts[2].strip():
        scale = parts[2].strip()
        registers = f"({parts[0].strip()},{parts[1].strip()},{{}})"
    return Operand(OperandKind.MEMORY, prefix, displacement.strip(), registers, scale)
