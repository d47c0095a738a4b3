"""The linker script language: the subset of GNU ld's that this linker understands.

The parser turns text into the statements below. Whatever the subset leaves out
is refused with its line, never skipped.
"""

from dataclasses import dataclass

__all__ = [
    "Assertion",
    "Assignment",
    "BinaryNode",
    "Call",
    "CommandNode",
    "Condition",
    "DataStatement",
    "Entry",
    "FillStatement",
    "InputStatement",
    "Literal",
    "NameNode",
    "Node",
    "OutputSection",
    "Pattern",
    "Script",
    "Statement",
    "UnaryNode",
]


@dataclass(frozen=True, slots=True)
class Literal:
    """A number."""

    value: int


@dataclass(frozen=True, slots=True)
class NameNode:
    """A symbol, or "." for the location counter."""

    name: str
    line: int


@dataclass(frozen=True, slots=True)
class UnaryNode:
    """One of `- ~ !` applied to an operand."""

    operator: str
    operand: "Node"


@dataclass(frozen=True, slots=True)
class BinaryNode:
    """An infix operator; precedences are those of C."""

    operator: str
    left: "Node"
    right: "Node"
    line: int


@dataclass(frozen=True, slots=True)
class Condition:
    """`test ? then : otherwise`."""

    test: "Node"
    then: "Node"
    otherwise: "Node"


@dataclass(frozen=True, slots=True)
class Call:
    """A function such as ALIGN or SIZEOF; section names are `NameNode` arguments."""

    function: str
    arguments: tuple["Node", ...]
    line: int


Node = Literal | NameNode | UnaryNode | BinaryNode | Condition | Call


@dataclass(frozen=True, slots=True)
class Assignment:
    """`symbol = value;`, where the symbol may be "."; compound forms are spelled out."""

    symbol: str
    value: Node
    line: int
    provide: bool = False


@dataclass(frozen=True, slots=True)
class Assertion:
    """`ASSERT(condition, "text")`."""

    condition: Node
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Entry:
    """`ENTRY(symbol)`."""

    symbol: str
    line: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """`file(section section)`: input sections by the names of file and section."""

    file: str
    sections: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InputStatement:
    """Input sections go here, in file order."""

    pattern: Pattern
    line: int


@dataclass(frozen=True, slots=True)
class DataStatement:
    """`BYTE(value)`, SHORT, LONG or QUAD: `width` bytes."""

    width: int
    value: Node
    line: int


@dataclass(frozen=True, slots=True)
class FillStatement:
    """`FILL(pattern)`: what later gaps of this output section hold."""

    pattern: bytes


SectionStatement = InputStatement | DataStatement | FillStatement | Assignment | Assertion


@dataclass(frozen=True, slots=True)
class OutputSection:
    """`name address : ALIGN(n) { ... } =fill`; /DISCARD/ drops what it matches."""

    name: str
    statements: tuple[SectionStatement, ...]
    line: int
    address: Node | None = None
    alignment: Node | None = None
    fill: bytes | None = None

    @property
    def discards(self) -> bool:
        """Is this /DISCARD/?"""
        return self.name == "/DISCARD/"


CommandNode = Entry | Assignment | Assertion
Statement = CommandNode | OutputSection


@dataclass(frozen=True, slots=True)
class Script:
    """A parsed script: `name` for messages, statements in order."""

    name: str
    statements: tuple[Statement, ...]
