"""What a port filter is before anyone has checked it."""

import re
from dataclasses import dataclass

from vmi.address import Port
from vmm.filters.isa import Instruction

__all__ = ["MOST_STATE", "BadFilter", "FilterProgram", "PortRange", "parse_section"]

MOST_STATE = 4096
"""Bytes of state that a filter may have."""

_SECTION = "port/"
_RANGE = re.compile(r"(0x[0-9a-fA-F]+|\d+)(?:-(0x[0-9a-fA-F]+|\d+))?")
_PORTS = 0x10000


class BadFilter(ValueError):
    """A file that is no port filter; says where and what was expected."""


@dataclass(frozen=True, slots=True)
class PortRange:
    """The ports `first` to `last`, both included."""

    first: Port
    last: Port

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last

    def __str__(self) -> str:
        if self.first == self.last:
            return f"{self.first:#x}"
        return f"{self.first:#x}-{self.last:#x}"


@dataclass(frozen=True, slots=True)
class FilterProgram:
    """A program, the ports whose reads it sees, and its state as it begins.

    `lines` are the source lines of the instructions where the source was text, for
    messages. Raises `BadFilter` for more than `MOST_STATE` bytes of state.
    """

    name: str
    ports: tuple[PortRange, ...]
    code: tuple[Instruction | None, ...]
    state: bytes
    lines: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.state) > MOST_STATE:
            raise BadFilter(
                f"filter {self.name!r}: {len(self.state)} bytes of state, "
                f"expected at most {MOST_STATE}"
            )

    def rows(self) -> list[tuple[int, int, int, int, int]]:
        """(opcode, dst, src, offset, imm) of each place, zeros behind a wide load."""
        return [
            (0, 0, 0, 0, 0) if one is None else (one.opcode, one.dst, one.src, one.offset, one.imm)
            for one in self.code
        ]


def parse_section(section: str) -> tuple[PortRange, ...] | None:
    """The ports named by a section such as "port/0x40-0x42,0x61"; none for other sections.

    Raises `BadFilter` for ports that cannot be read.
    """
    if not section.startswith(_SECTION):
        return None
    ranges = []
    for part in section.removeprefix(_SECTION).split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise BadFilter(
                f"section {section!r}: {part!r} is no port range, expected one like 0x40-0x42"
            )
        first = int(match[1], 0)
        last = int(match[2], 0) if match[2] else first
        if not first <= last < _PORTS:
            raise BadFilter(f"section {section!r}: {part!r} is empty or beyond port 0xffff")
        ranges.append(PortRange(Port(first), Port(last)))
    return tuple(ranges)
