"""Carrying out a linker script: which input section goes where, and what symbols become.

The script is run over and over until nothing moves any more, since it may use the
sizes and addresses of what comes later.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from linker.errors import (
    AssertionFailedError,
    DuplicateSymbolError,
    OrphanSectionError,
    ScriptError,
    UndefinedSymbolError,
)
from linker.evaluate import Amount, Evaluator, align_up
from linker.objects import Binding, ObjectFile, Section, SectionFlag, Symbol
from linker.script import (
    Assertion,
    Assignment,
    DataStatement,
    Entry,
    FillStatement,
    InputStatement,
    NameNode,
    OutputSection,
    Script,
)

__all__ = ["Layout", "Output", "Placed"]

_MAX_PASSES = 16


@dataclass(eq=False, slots=True)
class Placed:
    """An input section and the offset it got in its output section."""

    object: ObjectFile
    section: Section
    offset: int = 0


@dataclass(eq=False, slots=True)
class Output:
    """An output section while it takes shape; `data` and `gaps` hold (offset, ...)."""

    rule: OutputSection
    address: int = 0
    size: int = 0
    alignment: int = 1
    placed: list[Placed] = field(default_factory=list)
    data: list[tuple[int, bytes]] = field(default_factory=list)
    gaps: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    """(offset, length, pattern): what nothing else covers; None for the default."""

    @property
    def name(self) -> str:
        """Its name in the script."""
        return self.rule.name

    @property
    def flags(self) -> SectionFlag:
        """What its inputs ask for, together."""
        flags = SectionFlag.ALLOC
        for placed in self.placed:
            flags |= placed.section.flags
        return flags

    @property
    def nobits(self) -> bool:
        """Does it take addresses but no bytes of the image?"""
        return not self.data and all(placed.section.nobits for placed in self.placed)


@dataclass(eq=False, slots=True)
class Layout:
    """A script at work on objects. After `run` everything has its address.

    `definitions` says where each global symbol of the objects is defined.
    """

    script: Script
    objects: Sequence[ObjectFile]
    definitions: dict[str, tuple[ObjectFile, Symbol]]
    duplicates: AbstractSet[Section] = frozenset()
    """Sections that another object has brought already; they are discarded."""
    outputs: list[Output] = field(default_factory=list)
    discarded: list[Placed] = field(default_factory=list)
    assigned: dict[str, Amount] = field(default_factory=dict)
    """Values of symbols that the script defines."""
    entry: Entry | None = None
    _of: dict[Section, tuple[Output, Placed]] = field(default_factory=dict)
    _inputs: dict[InputStatement, list[Placed]] = field(default_factory=dict)
    _wanted: frozenset[str] = frozenset()
    _final: bool = False
    _evaluator: Evaluator = field(init=False)

    def run(self) -> None:
        """Place everything; raises a `LinkError` when the script does not work out."""
        self._evaluator = Evaluator(
            self.script.name,
            self._lookup,
            self._size_of,
            self._address_of,
            self._is_defined,
            Amount(0, absolute=True),
        )
        self._check_definitions()
        self._match_sections()
        before: object = None
        for _ in range(_MAX_PASSES):
            self._pass()
            now = [(output.address, output.size) for output in self.outputs]
            after = (now, {name: amount.address for name, amount in self.assigned.items()})
            if after == before:
                break
            before = after
        else:
            raise ScriptError(self.script.name, 1, f"no stable layout in {_MAX_PASSES} passes")
        self._final = True
        self._pass()

    def address(self, section: Section) -> int | None:
        """Where an input section starts, or None when it is not in the image."""
        found = self._of.get(section)
        return None if found is None else found[0].address + found[1].offset

    def output_of(self, section: Section) -> Output | None:
        """The output section that holds an input section."""
        found = self._of.get(section)
        return None if found is None else found[0]

    # Before the passes

    def _check_definitions(self) -> None:
        for statement in self.script.statements:
            inner = statement.statements if isinstance(statement, OutputSection) else (statement,)
            for one in inner:
                if isinstance(one, Assignment) and not one.provide:
                    defined = self.definitions.get(one.symbol)
                    if defined is not None:
                        raise DuplicateSymbolError(
                            one.symbol,
                            defined[0].locate(defined[1]),
                            f"{self.script.name}:{one.line}",
                        )
        self._wanted = frozenset(
            symbol.name
            for obj in self.objects
            for symbol in obj.symbols
            if not symbol.defined and symbol.name
        )

    def _match_sections(self) -> None:
        """The first rule that matches an input section gets it."""
        waiting = [
            (obj, section)
            for obj in self.objects
            for section in obj.sections
            if section.flags & SectionFlag.ALLOC and section not in self.duplicates
        ]
        self.discarded += [
            Placed(obj, section)
            for obj in self.objects
            for section in obj.sections
            if section in self.duplicates
        ]
        for rule in self.script.statements:
            if not isinstance(rule, OutputSection):
                continue
            output = Output(rule)
            if not rule.discards:
                self.outputs.append(output)
            for statement in rule.statements:
                if not isinstance(statement, InputStatement):
                    continue
                pattern = statement.pattern
                taken = [
                    Placed(obj, section)
                    for obj, section in waiting
                    if fnmatchcase(obj.name, pattern.file)
                    and any(fnmatchcase(section.name, name) for name in pattern.sections)
                ]
                gone = {id(placed.section) for placed in taken}
                waiting = [entry for entry in waiting if id(entry[1]) not in gone]
                if rule.discards:
                    self.discarded += taken
                    continue
                self._inputs[statement] = taken
                for placed in taken:
                    output.placed.append(placed)
                    self._of[placed.section] = (output, placed)
        for obj, section in waiting:
            if section.size:
                raise OrphanSectionError(obj.name, section.name)

    # One pass

    def _pass(self) -> None:
        evaluator = self._evaluator
        evaluator.dot = Amount(0, absolute=True)
        outputs = iter(self.outputs)
        for statement in self.script.statements:
            evaluator.section = None
            match statement:
                case Entry():
                    self.entry = statement
                case Assertion():
                    self._assert(statement)
                case Assignment():
                    self._assign_outside(statement)
                case OutputSection() if not statement.discards:
                    self._section(next(outputs))

    def _assign_outside(self, statement: Assignment) -> None:
        if statement.symbol == ".":
            address = self._evaluator.value(statement.value).address
            self._evaluator.dot = Amount(address, absolute=True)
        else:
            self._define(statement)

    def _define(self, statement: Assignment) -> None:
        name = statement.symbol
        if statement.provide and (name not in self._wanted or name in self.definitions):
            return
        amount = self._evaluator.value(statement.value)
        if amount.is_number and self._evaluator.section is not None:
            # As in ld, a bare number assigned inside a section counts from its start.
            amount = Amount(amount.value, self._evaluator.section)
        self.assigned[name] = amount

    def _assert(self, statement: Assertion) -> None:
        if self._final and not self._evaluator.value(statement.condition).value:
            raise AssertionFailedError(
                self.script.name, statement.line, f"assertion failed: {statement.text}"
            )

    def _section(self, output: Output) -> None:
        evaluator, rule = self._evaluator, output.rule
        start = evaluator.dot.address
        output.alignment = max((placed.section.alignment for placed in output.placed), default=1)
        if rule.address is not None:
            start = evaluator.value(rule.address).address
        forced = 1 if rule.alignment is None else evaluator.value(rule.alignment).value
        output.alignment = max(output.alignment, forced)
        # An explicit address is exact; ld aligns it only to what ALIGN(n) asks for.
        address = align_up(start, output.alignment if rule.address is None else forced)
        before = evaluator.dot
        output.address = address
        output.size = 0
        output.data = []
        output.gaps = []
        evaluator.section = output
        evaluator.dot = Amount(0, output)
        fill = rule.fill
        for statement in rule.statements:
            match statement:
                case InputStatement():
                    self._place(output, self._inputs[statement], fill)
                case DataStatement():
                    value = evaluator.value(statement.value).address
                    data = (value & ((1 << 8 * statement.width) - 1)).to_bytes(
                        statement.width, "little"
                    )
                    output.data.append((output.size, data))
                    self._grow(output, output.size + statement.width)
                case FillStatement():
                    fill = statement.pattern
                case Assertion():
                    self._assert(statement)
                case Assignment("."):
                    self._move(output, statement, fill)
                case Assignment():
                    self._define(statement)
        evaluator.section = None
        # A section that came to nothing is not in the image and moves nothing. (ld may
        # move on when the script defines symbols in it, depending on what follows.)
        evaluator.dot = Amount(address + output.size, absolute=True) if output.size else before

    def _grow(self, output: Output, size: int) -> None:
        output.size = size
        self._evaluator.dot = Amount(size, output)

    def _place(self, output: Output, inputs: list[Placed], fill: bytes | None) -> None:
        for placed in inputs:
            end = output.address + output.size
            offset = align_up(end, placed.section.alignment) - output.address
            self._gap(output, offset, fill)
            placed.offset = offset
            self._grow(output, offset + placed.section.size)

    def _gap(self, output: Output, end: int, fill: bytes | None) -> None:
        if end > output.size:
            output.gaps.append((output.size, end - output.size, fill))

    def _move(self, output: Output, statement: Assignment, fill: bytes | None) -> None:
        amount = self._evaluator.value(statement.value)
        offset = amount.value if amount.is_number else amount.address - output.address
        if offset < output.size and self._final:
            raise ScriptError(
                self.script.name,
                statement.line,
                f"the location counter of {output.name} moves back "
                f"from {output.size:#x} to {offset:#x}",
            )
        # Before the last pass the value may still be based on symbols without a place.
        offset = max(offset, output.size)
        self._gap(output, offset, fill)
        self._grow(output, offset)

    # What expressions ask for

    def _lookup(self, node: NameNode) -> Amount:
        if node.name in self.assigned:
            return self.assigned[node.name]
        defined = self.definitions.get(node.name)
        if defined is not None:
            symbol = defined[1]
            if symbol.section is None:
                return Amount(symbol.value, absolute=True)
            found = self._of.get(symbol.section)
            if found is not None:
                return Amount(found[1].offset + symbol.value, found[0])
        if self._final:
            raise UndefinedSymbolError(node.name, f"{self.script.name}:{node.line}")
        return Amount(0, absolute=True)

    def _is_defined(self, name: str) -> bool:
        return name in self.assigned or (
            name in self.definitions and self.definitions[name][1].binding != Binding.LOCAL
        )

    def _size_of(self, name: str) -> int:
        return sum(output.size for output in self.outputs if output.name == name)

    def _address_of(self, name: str, line: int) -> Amount:
        for output in self.outputs:
            if output.name == name:
                return Amount(0, output)
        raise ScriptError(self.script.name, line, f"ADDR({name}): there is no such section")
