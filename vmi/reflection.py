"""Exit reflection: a native access to an offered port goes to a handler in the ROM.

The ROM hands over a table of 16-bit offsets from the start of its image: `TABLE` says what of. The
monitor pushes a frame like that of an interrupt with an error code, on the stack that is
in use, and has the guest go on at the handler with interrupts off:

    ESP + 0   access, as `Access` says
    ESP + 4   EIP of the next instruction
    ESP + 8   CS
    ESP + 12  EFLAGS

The handler does what the instruction asked for in the registers and in memory, drops the access and
returns by IRET. To have the instruction itself run, it takes its length from EIP first; the
monitor then serves it as if nothing had been reflected, once the port has been withdrawn.

Where an instruction is as long as a near call the monitor may write one there: of the port
call that does the same.
"""

from enum import IntFlag

__all__ = ["CALL_LENGTH", "LENGTH_SHIFT", "PORT_SHIFT", "TABLE", "Access"]

TABLE = (
    "reflect_port",
    *("IN", "INB", "INW", "INS", "INSB", "INSW"),
    *("OUT", "OUTB", "OUTW", "OUTS", "OUTSB", "OUTSW"),
)
"""The handler, and the port calls."""
CALL_LENGTH = 5


class Access(IntFlag):
    """Bits of the access. The port is in bits 31-16, the instruction's length in bits 9-6."""

    SIZE = 0x007
    """Bytes: 1, 2 or 4."""
    OUT = 0x008
    """OUT or OUTS, not IN or INS."""
    STRING = 0x010
    """INS to ES:EDI, or OUTS from DS:ESI."""
    REPEATED = 0x020
    """ECX times."""
    DOWN = 0x400
    """The direction flag, where EFLAGS has it."""


LENGTH_SHIFT = 6
PORT_SHIFT = 16
