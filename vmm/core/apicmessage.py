"""Messages of the APIC bus: what local APICs and I/O APICs say to each other.

A message is 24 bytes, little endian, one packet on a `socketpair(AF_UNIX,
SOCK_SEQPACKET)`, so that either end may be another process:

    offset  size  field
    0       1     version, 1
    1       1     kind, one of `MessageKind`
    2       1     delivery mode, one of `DeliveryMode`
    3       1     flags, `MessageFlag` bits
    4       1     vector
    5       1     zero
    6       2     index: an interrupt input, a register's offset, or an item of state
    8       4     destination: an APIC ID, or a set of logical IDs with `LOGICAL`
    12      4     zero
    16      8     value

Delivery modes and destinations are those of an interrupt command (Intel SDM vol. 3,
section "Interrupt Command Register"). A field that a kind does not use is zero.

INTERRUPT goes to the local APICs, all else concerns one device. LINE, READ, WRITE and
EOI are requests: the device answers each with one ANSWER, after the INTERRUPT and
STATE messages that follow from it. So whoever asked knows when all consequences are
on the table, and counts repeat also with the device in another process. STATE from
the device says what it must be told if it has to start afresh; the same messages,
sent to a new one before anything else, put it where the old one was.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from vmm.core.errors import VmmError

__all__ = [
    "BROADCAST",
    "MESSAGE_SIZE",
    "MESSAGE_VERSION",
    "ApicMessage",
    "BadMessage",
    "DeliveryMode",
    "MessageFlag",
    "MessageKind",
    "message_signalled",
]

MESSAGE_VERSION = 1
"""What a message of this format begins with."""
BROADCAST = 0xFF
"""The destination that is every local APIC, physical or logical."""

_LAYOUT = struct.Struct("<BBBBBBHIIQ")
MESSAGE_SIZE = _LAYOUT.size
"""Bytes of a message on the wire."""

_MSI_BASE, _MSI_SPAN = 0xFEE00000, 0x100000


class BadMessage(VmmError):
    """Bytes that are no message of the APIC bus."""


class MessageKind(IntEnum):
    """What a message is."""

    INTERRUPT = 1
    """To the local APICs: delivery mode, destination, vector and flags say what and whom."""
    EOI = 2
    """To the I/O APIC: `vector`, a level-triggered one, was ended by a local APIC."""
    LINE = 3
    """To the device: the wire of input `index` is now high (ASSERT) or low."""
    READ = 4
    """To the device: what is in the register at offset `index`?"""
    WRITE = 5
    """To the device: store `value` to the register at offset `index`."""
    ANSWER = 6
    """From the device: a request and all that follows from it is done; READ's `value`."""
    STATE = 7
    """Either way: item `index` of the device's state is `value`."""


class DeliveryMode(IntEnum):
    """How the processor takes an interrupt, as encoded in an interrupt command."""

    FIXED = 0
    """By `vector`, on every processor of the destination."""
    LOWEST_PRIORITY = 1
    """By `vector`, on the one processor of the destination that does the least urgent work."""
    SMI = 2
    """System management; accepted, and of no effect here."""
    NMI = 4
    """The non-maskable interrupt, vector 2."""
    INIT = 5
    """Reset the processor; it then waits for STARTUP."""
    STARTUP = 6
    """Begin in real mode at the page numbered `vector`."""
    EXTINT = 7
    """As if the 8259 asked: the processor fetches the vector from there."""


class MessageFlag(IntFlag):
    """Bits of the flags field."""

    NONE = 0
    """An edge, for an APIC ID."""
    LOGICAL = 1
    """The destination is a set of logical IDs; else it is an APIC ID."""
    ASSERT = 2
    """The wire is high; an INIT without it is the old de-assert, of no effect."""
    LEVEL = 4
    """Level-triggered: its end is told to the I/O APICs (EOI)."""


@dataclass(frozen=True, slots=True)
class ApicMessage:
    """One message. `vector` is 8 bits, `index` 16, `destination` 32, `value` 64."""

    kind: MessageKind
    delivery: DeliveryMode = DeliveryMode.FIXED
    flags: MessageFlag = MessageFlag.NONE
    vector: int = 0
    index: int = 0
    destination: int = 0
    value: int = 0

    def pack(self) -> bytes:
        """The message as it goes over the wire."""
        return _LAYOUT.pack(
            MESSAGE_VERSION,
            self.kind,
            self.delivery,
            self.flags,
            self.vector,
            0,
            self.index,
            self.destination,
            0,
            self.value,
        )

    @classmethod
    def unpack(cls, packet: bytes) -> "ApicMessage":
        """Read a packet.

        Raises `BadMessage` for a wrong length or version, for numbers that mean
        nothing, and where something stands in a field that is to be zero.
        """
        if len(packet) != MESSAGE_SIZE:
            raise BadMessage(f"APIC message of {len(packet)} bytes, expected {MESSAGE_SIZE}")
        version, kind, delivery, flags, vector, zero, index, destination, more_zero, value = (
            _LAYOUT.unpack(packet)
        )
        if version != MESSAGE_VERSION:
            raise BadMessage(f"APIC message of version {version}, expected {MESSAGE_VERSION}")
        if zero or more_zero:
            raise BadMessage(f"APIC message with {zero:#x}, {more_zero:#x} in fields that are zero")
        try:
            return cls(
                MessageKind(kind),
                DeliveryMode(delivery),
                _known_flags(flags),
                vector,
                index,
                destination,
                value,
            )
        except ValueError as error:
            raise BadMessage(f"APIC message: {error}") from None

    @property
    def is_level(self) -> bool:
        """Is it level-triggered?"""
        return bool(self.flags & MessageFlag.LEVEL)

    @property
    def is_logical(self) -> bool:
        """Is the destination a set of logical IDs?"""
        return bool(self.flags & MessageFlag.LOGICAL)


def _known_flags(flags: int) -> MessageFlag:
    unknown = flags & ~sum(MessageFlag)
    if unknown:
        raise ValueError(f"{unknown:#x} is no flag")
    return MessageFlag(flags)


def message_signalled(address: int, data: int) -> ApicMessage:
    """The interrupt that a device's write of `data` to `address` means.

    Address and data are as in SDM vol. 3, section "Message Signalled Interrupts".
    Raises `BadMessage` for an address outside 0xFEE00000-0xFEEFFFFF and for a delivery
    mode that does not exist.
    """
    if not _MSI_BASE <= address < _MSI_BASE + _MSI_SPAN:
        raise BadMessage(
            f"message-signalled interrupt to {address:#x}, expected "
            f"{_MSI_BASE:#x}-{_MSI_BASE + _MSI_SPAN - 1:#x}"
        )
    mode = data >> 8 & 7
    if mode not in set(DeliveryMode):
        raise BadMessage(f"message-signalled interrupt with delivery mode {mode}")
    flags = MessageFlag.ASSERT
    # The manual ignores this bit without the redirection hint beside it. Processors and
    # hypervisors do not, and guests rely on that.
    if address >> 2 & 1:
        flags |= MessageFlag.LOGICAL
    if data >> 15 & 1:
        flags |= MessageFlag.LEVEL
        if not data >> 14 & 1:
            flags &= ~MessageFlag.ASSERT
    return ApicMessage(
        MessageKind.INTERRUPT,
        DeliveryMode(mode),
        flags,
        vector=data & 0xFF,
        destination=address >> 12 & 0xFF,
    )
