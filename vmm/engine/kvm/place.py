"""Which instruction made a port exit.

KVM leaves RIP on an IN until its value has been handed in. Of an OUT it has passed
where the instruction was emulated, and not where the processor ran it. So the bytes on
both sides of RIP are looked at, and only where they do not decide does it matter
what was seen before.
"""

from collections.abc import Callable

__all__ = ["PortPlaces"]

_LONGEST = 6
_OPERAND_SIZE = 0x66
_REPEAT = (0xF2, 0xF3)
_OTHER_PREFIXES = (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x67)
_BYTE, _WIDE = 0, 1
_IMMEDIATE = {0: (0xE4, 0xE5), 1: (0xE6, 0xE7)}
_BY_DX = {0: (0xEC, 0xED), 1: (0xEE, 0xEF)}
_STRING = {0: (0x6C, 0x6D), 1: (0x6E, 0x6F)}


class PortPlaces:
    """Finds the start of port instructions. `read` answers code bytes at a linear address."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._known: dict[tuple[int, int, int, int], int] = {}
        self._passes_out = True

    def forget(self) -> None:
        """The guest's code may have changed."""
        self._known.clear()

    def start(self, at: int, direction: int, size: int, port: int, *, big: bool) -> int:
        """The instruction's linear address, with RIP at the linear address `at`.

        `direction` is 0 for IN and 1 for OUT, `big` the default operand size of the code.
        """
        key = (at, direction, size, port)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._find(at, direction, size, port, big=big)
        return known

    def _find(self, at: int, direction: int, size: int, port: int, *, big: bool) -> int:
        code = self._read((at - _LONGEST) & 0xFFFFFFFF, 2 * _LONGEST)
        if len(code) < 2 * _LONGEST:
            return at
        here = _length(code[_LONGEST:], direction, size, port, big=big) > 0
        before = max(
            (
                back
                for back in range(1, _LONGEST + 1)
                if _length(code[_LONGEST - back : _LONGEST], direction, size, port, big=big) == back
            ),
            default=0,
        )
        if direction == 1 and here != bool(before):
            self._passes_out = bool(before)
        if direction == 1 and before and (self._passes_out or not here):
            return at - before
        return at


def _length(code: bytes, direction: int, size: int, port: int, *, big: bool) -> int:
    """The length of the IN or OUT of this size and port that `code` starts with, or 0."""
    at = 0
    operand_size = repeat = False
    while at < len(code) and (
        code[at] == _OPERAND_SIZE or code[at] in _REPEAT or code[at] in _OTHER_PREFIXES
    ):
        operand_size |= code[at] == _OPERAND_SIZE
        repeat |= code[at] in _REPEAT
        at += 1
    if at >= len(code):
        return 0
    width = 1 if size == 1 else (2 if big == operand_size else 4)
    which = _BYTE if size == 1 else _WIDE
    opcode = code[at]
    string = opcode == _STRING[direction][which]
    if width != size or (size == 1 and operand_size) or (repeat and not string):
        return 0
    if string or opcode == _BY_DX[direction][which]:
        return at + 1
    return at + 2 if (opcode, *code[at + 1 : at + 2]) == (_IMMEDIATE[direction][which], port) else 0
