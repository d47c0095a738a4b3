"""Linker script text into statements."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from linker.errors import ScriptError
from linker.script import (
    Assertion,
    Assignment,
    BinaryNode,
    Call,
    Condition,
    DataStatement,
    Entry,
    FillStatement,
    InputStatement,
    Literal,
    NameNode,
    Node,
    OutputSection,
    Pattern,
    Script,
    SectionStatement,
    Statement,
    UnaryNode,
)

__all__ = ["parse_script", "read_script"]

_SPACE = re.compile(r"(?:\s|/\*.*?\*/)*", re.DOTALL)
# A name may hold "/" or "*" only where a name is expected: in an expression these
# are operators. GNU ld switches between such modes too.
_NAME = re.compile(r"[A-Za-z_.$~/\\*?\[\]][A-Za-z0-9_.$~/\\*?\[\]\-+]*|[0-9][A-Za-z0-9_.$]*")
_SYMBOL = re.compile(r"[A-Za-z_.$\\][A-Za-z0-9_.$\\]*|\"[^\"\n]*\"")
_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|\$[0-9a-fA-F]+|[0-9]+)([KkMm]?)(?![A-Za-z0-9_])")
_OPERATOR = re.compile(r"<<=?|>>=?|&&|\|\||[-+*/&|^!=<>]=|[-+*/%&|^~!<>=?:;,(){}]")
_PLACEMENT = re.compile(r"[>:]|AT\b")
_HEX = re.compile(r"0[xX]([0-9a-fA-F]+)(?![A-Za-z0-9_])")
_OPEN = re.compile(r"\(")
_STRING = re.compile(r"\"([^\"\n]*)\"")

_RANKS = (
    ("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="),
    ("<<", ">>"), ("+", "-"), ("*", "/", "%"),
)  # fmt: skip
_RANK = {operator: rank for rank, operators in enumerate(_RANKS) for operator in operators}
_ASSIGNMENTS = ("=", "+=", "-=", "*=", "/=", "<<=", ">>=", "&=", "|=")
_WIDTHS = {"BYTE": 1, "SHORT": 2, "LONG": 4, "QUAD": 8}
_FUNCTIONS = {
    "ALIGN": (1, 2),
    "ABSOLUTE": (1, 1),
    "ADDR": (1, 1),
    "DEFINED": (1, 1),
    "MAX": (2, 2),
    "MIN": (2, 2),
    "SIZEOF": (1, 1),
}
# Commands that say how GNU ld is to write its file; ours is always i386.
_FORMAT_COMMANDS = ("OUTPUT_FORMAT", "OUTPUT_ARCH", "TARGET")


@dataclass(slots=True)
class _Parser:
    name: str
    text: str
    position: int = 0
    statements: list[Statement] = field(default_factory=list)

    @property
    def line(self) -> int:
        """The line of the next token."""
        space = _SPACE.match(self.text, self.position)
        return self.text.count("\n", 0, space.end() if space else self.position) + 1

    def fail(self, problem: str) -> ScriptError:
        return ScriptError(self.name, self.line, problem)

    def match(self, pattern: re.Pattern[str]) -> str | None:
        """Take what the pattern matches after blanks and comments."""
        space = _SPACE.match(self.text, self.position)
        if space is not None:
            self.position = space.end()
        if self.text.startswith("/*", self.position):
            raise self.fail("the comment never ends")
        found = pattern.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found.group()

    def peek(self, pattern: re.Pattern[str]) -> str | None:
        start = self.position
        found = self.match(pattern)
        self.position = start
        return found

    def accept(self, operator: str) -> bool:
        start = self.position
        if self.match(_OPERATOR) == operator:
            return True
        self.position = start
        return False

    def expect(self, operator: str) -> None:
        if not self.accept(operator):
            self.match(_SPACE)
            found = self.text[self.position : self.position + 20].split("\n")[0]
            raise self.fail(f"expected {operator!r}, found {found or 'the end'!r}")

    def end(self) -> bool:
        self.match(_SPACE)
        return self.position == len(self.text)

    def name_token(self, what: str) -> str:
        found = self.match(_NAME)
        if found is None:
            found = self.match(_SYMBOL)
        if found is None:
            raise self.fail(f"expected {what}, found {self.text[self.position :][:20]!r}")
        return found.strip('"')

    # Commands

    def script(self) -> Script:
        while not self.end():
            self.command()
        return Script(self.name, tuple(self.statements))

    def command(self) -> None:
        if self.accept(";"):
            return
        word = self.peek(_SYMBOL)
        if word in _FORMAT_COMMANDS:
            self.match(_SYMBOL)
            self.expect("(")
            while not self.accept(")"):
                self.name_token("a format name")
                self.accept(",")
            return
        if word == "SECTIONS":
            self.match(_SYMBOL)
            self.expect("{")
            while not self.accept("}"):
                if not self.accept(";"):
                    self.statements.append(self.sections_statement())
            return
        self.statements.append(self.common())

    def common(self) -> Assignment | Assertion | Entry:
        """What may stand both outside and inside SECTIONS."""
        line = self.line
        word = self.match(_SYMBOL)
        if word is None:
            raise self.fail(f"expected a statement, found {self.text[self.position :][:20]!r}")
        if word == "ENTRY":
            self.expect("(")
            symbol = self.name_token("a symbol")
            self.expect(")")
            return Entry(symbol, line)
        if word == "ASSERT":
            return self.assertion(line)
        if word in ("PROVIDE", "PROVIDE_HIDDEN", "HIDDEN"):
            self.expect("(")
            assignment = self.assignment(self.name_token("a symbol"), line)
            self.expect(")")
            self.accept(";")
            return Assignment(
                assignment.symbol, assignment.value, line, provide=word.startswith("PROVIDE")
            )
        if self.peek(_OPERATOR) not in _ASSIGNMENTS:
            raise ScriptError(self.name, line, f"{word} is not supported")
        assignment = self.assignment(word.strip('"'), line)
        self.expect(";")
        return assignment

    def assertion(self, line: int) -> Assertion:
        self.expect("(")
        condition = self.expression()
        self.expect(",")
        text = self.match(_STRING)
        if text is None:
            raise self.fail("ASSERT wants a text in double quotes")
        self.expect(")")
        self.accept(";")
        return Assertion(condition, text[1:-1], line)

    def assignment(self, symbol: str, line: int) -> Assignment:
        operator = self.match(_OPERATOR)
        if operator not in _ASSIGNMENTS:
            raise self.fail(f"expected an assignment to {symbol}, found {operator!r}")
        value = self.expression()
        if operator != "=":
            assert operator is not None  # noqa: S101 (it is one of _ASSIGNMENTS)
            value = BinaryNode(operator[:-1], NameNode(symbol, line), value, line)
        return Assignment(symbol, value, line)

    # Sections

    def sections_statement(self) -> Statement:
        start, line = self.position, self.line
        word = self.peek(_SYMBOL)
        if word in ("ENTRY", "ASSERT", "PROVIDE", "PROVIDE_HIDDEN", "HIDDEN"):
            return self.common()
        if word is not None:
            self.match(_SYMBOL)
            if self.peek(_OPERATOR) in _ASSIGNMENTS:
                self.position = start
                return self.common()
            self.position = start
        line = self.line
        return self.output_section(self.name_token("an output section"), line)

    def output_section(self, name: str, line: int) -> OutputSection:
        if name in ("OVERLAY", "INSERT", "INCLUDE"):
            raise ScriptError(self.name, line, f"{name} is not supported")
        address = None
        if not self.accept(":"):
            if self.accept("("):
                raise ScriptError(self.name, line, f"section type of {name} is not supported")
            address = self.expression()
            self.expect(":")
        alignment = None
        while not self.accept("{"):
            attribute = self.match(_SYMBOL)
            if attribute != "ALIGN":
                raise self.fail(f"{attribute or 'this'} is not supported before '{{' of {name}")
            self.expect("(")
            alignment = self.expression()
            self.expect(")")
        return self.section_body(name, line, address, alignment)

    def section_body(
        self, name: str, line: int, address: Node | None, alignment: Node | None
    ) -> OutputSection:
        statements: list[SectionStatement] = []
        while not self.accept("}"):
            if not self.accept(";"):
                statements.append(self.section_statement())
        fill = None
        if self.accept("="):
            fill = self.fill()
        elif self.peek(_PLACEMENT) is not None:
            raise self.fail(f"memory regions and segments ({name}) are not supported")
        self.accept(",")
        return OutputSection(name, tuple(statements), line, address, alignment, fill)

    def section_statement(self) -> SectionStatement:
        start, line = self.position, self.line
        word = self.match(_SYMBOL)
        if word in _WIDTHS:
            self.expect("(")
            value = self.expression()
            self.expect(")")
            self.accept(";")
            return DataStatement(_WIDTHS[word], value, line)
        if word == "FILL":
            self.expect("(")
            pattern = self.fill()
            self.expect(")")
            self.accept(";")
            return FillStatement(pattern)
        if word == "KEEP":
            # Nothing is ever dropped for want of a reference, so KEEP is what we do.
            self.expect("(")
            statement = self.input_statement()
            self.expect(")")
            return statement
        if word in ("ASSERT", "PROVIDE", "PROVIDE_HIDDEN", "HIDDEN") or (
            word is not None and self.peek(_OPERATOR) in _ASSIGNMENTS
        ):
            self.position = start
            common = self.common()
            assert not isinstance(common, Entry)  # noqa: S101 (ENTRY cannot be reached here)
            return common
        self.position = start
        return self.input_statement()

    def input_statement(self) -> InputStatement:
        line = self.line
        file = self.name_token("a file pattern")
        if not self.accept("("):
            raise ScriptError(
                self.name, line, f"{file} without (sections) is not supported; write {file}(*)"
            )
        sections = []
        while not self.accept(")"):
            pattern = self.name_token("a section pattern")
            if self.peek(_OPEN) is not None:
                raise self.fail(f"{pattern} is not supported in a section pattern")
            sections.append(pattern)
            self.accept(",")
        return InputStatement(Pattern(file, tuple(sections)), line)

    def fill(self) -> bytes:
        """A long hex number is a pattern as written; any other value is 4 bytes, big end first."""
        self.match(_SPACE)
        digits = _HEX.match(self.text, self.position)
        if digits is not None:
            self.position = digits.end()
            text = digits[1]
            return bytes.fromhex(text if len(text) % 2 == 0 else f"0{text}")
        value = self.primary()
        if not isinstance(value, Literal):
            raise self.fail("a fill must be a number")
        return (value.value & 0xFFFFFFFF).to_bytes(4, "big")

    # Expressions

    def expression(self) -> Node:
        test = self.infix(0)
        if not self.accept("?"):
            return test
        then = self.expression()
        self.expect(":")
        return Condition(test, then, self.expression())

    def infix(self, rank: int) -> Node:
        left = self.primary()
        while True:
            start, line = self.position, self.line
            operator = self.match(_OPERATOR)
            found = _RANK.get(operator or "", -1)
            if operator is None or found < rank:
                self.position = start
                return left
            left = BinaryNode(operator, left, self.infix(found + 1), line)

    def primary(self) -> Node:
        line = self.line
        number = self.match(_NUMBER)
        if number is not None:
            return Literal(_number(number))
        for operator in ("-", "~", "!", "+"):
            if self.accept(operator):
                operand = self.primary()
                return operand if operator == "+" else UnaryNode(operator, operand)
        if self.accept("("):
            inner = self.expression()
            self.expect(")")
            return inner
        name = self.match(_SYMBOL)
        if name is None:
            raise self.fail(f"expected a value, found {self.text[self.position :][:20]!r}")
        if self.peek(_OPEN) is None:
            return NameNode(name.strip('"'), line)
        return self.call(name, line)

    def call(self, function: str, line: int) -> Node:
        if function not in _FUNCTIONS:
            raise ScriptError(self.name, line, f"the function {function} is not supported")
        self.expect("(")
        arguments: list[Node] = []
        while not self.accept(")"):
            if arguments:
                self.expect(",")
            if function in ("SIZEOF", "ADDR", "DEFINED"):
                arguments.append(NameNode(self.name_token("a name"), line))
            else:
                arguments.append(self.expression())
        least, most = _FUNCTIONS[function]
        if not least <= len(arguments) <= most:
            raise ScriptError(self.name, line, f"{function} takes {least} to {most} arguments")
        return Call(function, tuple(arguments), line)


def _number(text: str) -> int:
    scale = {"K": 1 << 10, "M": 1 << 20}.get(text[-1].upper(), 1)
    digits = text if scale == 1 else text[:-1]
    if digits.startswith("$"):
        return int(digits[1:], 16) * scale
    if digits[:2].lower() == "0x":
        return int(digits, 16) * scale
    return int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10) * scale


def parse_script(text: str, name: str = "script") -> Script:
    """Read a script; raises `ScriptError` naming `name` and the line."""
    return _Parser(name, text).script()


def read_script(path: Path) -> Script:
    """Read a script file; raises `ScriptError`, or `OSError` when there is none."""
    return parse_script(path.read_text(encoding="ascii"), path.name)
