"""What a filter is given and what it answers: the layout of its context.

r1 points to the context, r10 to the end of a stack frame, `state ll` is the address of
the state. r0 says at the end whether `value` is what the guest shall read (1), or
whether the device must be asked (0).
"""

from enum import IntEnum

__all__ = ["CONTEXT_FIELDS", "CONTEXT_SIZE", "MOST_FRAMES", "STACK_SIZE", "Field", "Verdict"]

STACK_SIZE = 512
"""Bytes of one frame, which r10 points behind (RFC 9669, section 2.1: implementation-defined)."""
MOST_FRAMES = 8
"""Functions that may be under way at once."""
CONTEXT_SIZE = 24


class Verdict(IntEnum):
    """What r0 may be at the end."""

    ASK_DEVICE = 0
    ANSWERED = 1


class Field(IntEnum):
    """Offsets in the context."""

    PORT = 0
    SIZE = 4
    NOW = 8
    VALUE = 16


CONTEXT_FIELDS: dict[int, tuple[int, bool]] = {
    Field.PORT: (4, False),
    Field.SIZE: (4, False),
    Field.NOW: (8, False),
    Field.VALUE: (4, True),
}
"""{offset: (width in bytes, may it be written?)}: the port, the width of the access in
bytes, virtual time in nanoseconds, and the answer."""
