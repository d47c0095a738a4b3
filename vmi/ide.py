"""An IDE channel that the ROM keeps itself: the words that ROM and monitor share.

The port calls need no exit if the ROM answers them. So the monitor hands a channel over: its
registers, and what else the device knows of its drive, go into a *channel block* in the ROM's
writable data. From then on the ROM is the device. What it cannot do, reading and writing
sectors, it asks for with one `Doorbell.IDE_REQUEST` for many sectors; the data lie in the
block's buffer. At the first access by a native instruction the monitor takes everything
back, data half transferred included, and the next call hands it over again.

A block belongs to a channel with at most one drive, device 0. All fields are 32-bit words, but
`REGISTERS` and `PREVIOUS`, a byte for each register of the command block, and `BUFFER`.
"""

from enum import IntEnum

__all__ = [
    "BLOCK_SIZE",
    "BUFFER_SECTORS",
    "BUFFER_SIZE",
    "IDENTIFY_SIZE",
    "IdeField",
    "IdeRequest",
]

BUFFER_SECTORS = 16
"""As many as SET MULTIPLE MODE allows in one block of a transfer."""
BUFFER_SIZE = 512 * BUFFER_SECTORS
IDENTIFY_SIZE = 512


class IdeField(IntEnum):
    """Byte offsets in a channel block."""

    OWNED = 0x00
    """1 while the ROM keeps the channel; the monitor writes it."""
    NUMBER = 0x04
    """0 for the ports from 0x1F0 on, 1 for those from 0x170 on."""
    REQUEST = 0x08
    """What the ROM asks for: an `IdeRequest`."""
    FIRST = 0x0C
    """Two words: the request's first sector."""
    SECTORS = 0x14
    """How many sectors from there on; at most `BUFFER_SECTORS`."""
    DONE = 0x18
    """The answer: how many went well before the first that did not. Of a flush, 1."""
    LEVEL = 0x1C
    """The interrupt line as the ROM wants it from this request on."""
    PRESENT = 0x20
    """Is there a drive?"""
    READ_ONLY = 0x24
    """Does it refuse to be written?"""
    CAPACITY = 0x28
    """Two words: its sectors."""
    HEADS = 0x30
    TRACK = 0x34
    """The geometry in force: heads, and sectors per track."""
    MULTIPLE = 0x38
    """Sectors per block of READ and WRITE MULTIPLE, 0 for none."""
    SELECTED = 0x3C
    """The device that is selected, 0 or 1."""
    CONTROL = 0x40
    """The device control register."""
    REGISTERS = 0x44
    """Bytes 1 to 6: features, count, low, mid, high, device, as last written."""
    PREVIOUS = 0x4C
    """Bytes 2 to 5: what was written before that."""
    ERROR = 0x54
    STATUS = 0x58
    INTERRUPT = 0x5C
    """Does the drive ask for service?"""
    INCOMING = 0x60
    """Does the transfer go to the drive?"""
    WIDE = 0x64
    """Has its command addresses of 48 bits?"""
    BLOCK = 0x68
    """Sectors for which data is requested at a time."""
    LEFT = 0x6C
    """Sectors after those in the current block; of a write, with them."""
    NEXT = 0x70
    """Two words: the sector after those in the current block; of a write, its first one."""
    POSITION = 0x78
    """Offset in the buffer of the next byte that goes through the data port."""
    BLOCK_START = 0x7C
    """Where in the buffer the current block starts. What lies before it, in a write, the monitor
    has not got yet."""
    BLOCK_END = 0x80
    CHUNK_END = 0x84
    """Where what was read ahead ends."""
    DEFERRED = 0x88
    """A write that nobody waited for any more went wrong: the next FLUSH CACHE says so."""
    IDENTIFY = 0x90
    """What IDENTIFY DEVICE answers."""
    BUFFER = 0x290


BLOCK_SIZE = IdeField.BUFFER + BUFFER_SIZE


class IdeRequest(IntEnum):
    """What `REQUEST` says. Each also sets the interrupt line to `LEVEL`."""

    LINE = 0
    """That alone."""
    READ = 1
    """Sectors into the buffer, from its beginning."""
    WRITE = 2
    """Sectors from the beginning of the buffer."""
    FLUSH = 3
    """What was written is to last."""
