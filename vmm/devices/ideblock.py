"""The words of a channel block (vmi/ide.py), and a channel's state in them.

The ROM's data are the guest's to change: what comes out of a block is checked, number by
number, before a device believes it.
"""

from typing import TypeVar

from vmi.ide import BUFFER_SIZE, IdeField
from vmm.core.bus import Block
from vmm.core.saved import Fields
from vmm.devices.disk import SECTOR_SIZE, Writes
from vmm.devices.ide import IdeChannel
from vmm.devices.idedrive import DriveState, IdeDrive, Registers, Status
from vmm.devices.ideidentify import MULTIPLE_LIMIT, Geometry

__all__ = ["BadBlock", "ChannelBlock"]

_FIRST_REGISTER, _REGISTERS = 1, 6
_BYTE = 0xFF
_MOST_LEFT = 1 << 16

T = TypeVar("T", bound=int)


class BadBlock(ValueError):
    """What a block says cannot be."""


class ChannelBlock:
    """A channel block in guest memory."""

    SAVED = Fields(elsewhere="_memory")

    def __init__(self, memory: Block) -> None:
        self._memory = memory

    @property
    def start(self) -> int:
        """Its guest-physical address."""
        return self._memory.start

    def word(self, field: int) -> int:
        """A 32-bit field."""
        return int.from_bytes(self._memory.read(field, 4), "little")

    def set_word(self, field: int, value: int) -> None:
        """Store a 32-bit field."""
        self._memory.write(field, value.to_bytes(4, "little"))

    def pair(self, field: int) -> int:
        """A field of two words."""
        return int.from_bytes(self._memory.read(field, 8), "little")

    def set_pair(self, field: int, value: int) -> None:
        """Store a field of two words."""
        self._memory.write(field, value.to_bytes(8, "little"))

    def buffer(self, start: int, end: int) -> bytes:
        """Bytes of the buffer, which ends at `BUFFER_SIZE`."""
        return self._memory.read(IdeField.BUFFER + start, end - start)

    def fill_buffer(self, data: bytes) -> None:
        """Store to the beginning of the buffer."""
        self._memory.write(IdeField.BUFFER, data)

    # ---- the device's state, into the block

    def store(self, channel: IdeChannel) -> None:
        """Leave the state of `channel` and of its device 0."""
        drive = channel.drives[0]
        self.set_word(IdeField.SELECTED, channel.selected)
        self.set_word(IdeField.CONTROL, channel.control)
        self.set_word(IdeField.LEVEL, channel.level)
        self.set_word(IdeField.PRESENT, drive is not None)
        self.set_word(IdeField.DEFERRED, 0)
        if drive is not None:
            self._store_drive(drive)

    def _store_drive(self, drive: IdeDrive) -> None:
        state, registers = drive.state, drive.registers
        self.set_word(IdeField.READ_ONLY, drive.image.writes is Writes.REFUSE)
        self.set_pair(IdeField.CAPACITY, drive.image.sectors)
        self._memory.write(
            IdeField.REGISTERS + _FIRST_REGISTER,
            bytes((
                registers.features, registers.count,
                registers.low, registers.mid, registers.high, registers.device,
            )),
        )  # fmt: skip
        self._memory.write(
            IdeField.PREVIOUS + _FIRST_REGISTER,
            bytes((
                0, registers.previous_count,
                registers.previous_low, registers.previous_mid, registers.previous_high, 0,
            )),
        )  # fmt: skip
        for field, value in (
            (IdeField.HEADS, state.geometry.heads),
            (IdeField.TRACK, state.geometry.sectors),
            (IdeField.MULTIPLE, state.multiple),
            (IdeField.ERROR, state.error),
            (IdeField.STATUS, state.status),
            (IdeField.INTERRUPT, state.interrupt),
            (IdeField.INCOMING, state.incoming),
            (IdeField.WIDE, state.wide),
            (IdeField.BLOCK, state.block),
            (IdeField.LEFT, state.left),
            (IdeField.POSITION, state.position),
            (IdeField.BLOCK_START, 0),
            (IdeField.BLOCK_END, len(state.data)),
            (IdeField.CHUNK_END, len(state.data)),
        ):
            self.set_word(field, value)
        self.set_pair(IdeField.NEXT, state.next_sector)
        self._memory.write(IdeField.IDENTIFY, drive.identify_data())
        self.fill_buffer(state.data)

    # ---- and back

    def channel(self) -> tuple[int, int]:
        """Which device is selected, and the device control register."""
        return self._at_most(IdeField.SELECTED, 1), self._at_most(IdeField.CONTROL, _BYTE)

    def waiting(self) -> tuple[int, bytes]:
        """The sectors of a write that the ROM has not handed over: the first one, and the data."""
        start, _, _ = self._bounds()
        if not self._is_transfer() or not self.word(IdeField.INCOMING):
            return 0, b""
        first = self.pair(IdeField.NEXT) - start // SECTOR_SIZE
        if first < 0:
            raise BadBlock(f"a write of {start} bytes that would start before the disk")
        return first, self.buffer(0, start)

    def drive(self, image_sectors: int) -> DriveState:
        """The state of device 0 of so many sectors; raises `BadBlock`."""
        features, count, low, mid, high, device = self._bytes(IdeField.REGISTERS)
        _, previous_count, previous_low, previous_mid, previous_high, _ = self._bytes(
            IdeField.PREVIOUS
        )
        heads, track = self._at_most(IdeField.HEADS, 16), self._at_most(IdeField.TRACK, _BYTE)
        multiple = self._at_most(IdeField.MULTIPLE, MULTIPLE_LIMIT)
        if not heads or not track or multiple & (multiple - 1):
            raise BadBlock(f"{heads} heads, {track} sectors per track, blocks of {multiple}")
        start, position, end = self._bounds()
        next_sector = self.pair(IdeField.NEXT)
        if next_sector > image_sectors:
            raise BadBlock(f"sector {next_sector} of {image_sectors}")
        transfer = self._is_transfer()
        return DriveState(
            registers=Registers(
                features, count, low, mid, high, device,
                previous_count, previous_low, previous_mid, previous_high,
            ),
            error=self._at_most(IdeField.ERROR, _BYTE),
            status=self._at_most(IdeField.STATUS, _BYTE),
            interrupt=bool(self.word(IdeField.INTERRUPT)),
            geometry=_geometry(image_sectors, heads, track),
            multiple=multiple,
            data=self.buffer(start, end) if transfer else b"",
            position=position - start if transfer else 0,
            incoming=bool(self.word(IdeField.INCOMING)),
            wide=bool(self.word(IdeField.WIDE)),
            block=self._at_most(IdeField.BLOCK, MULTIPLE_LIMIT),
            left=self._at_most(IdeField.LEFT, _MOST_LEFT),
            next_sector=next_sector,
        )  # fmt: skip

    def _is_transfer(self) -> bool:
        return bool(self.word(IdeField.STATUS) & Status.DATA_REQUEST)

    def _bounds(self) -> tuple[int, int, int]:
        """Start, position and end of the current block in the buffer."""
        start, position, end = (
            self.word(field)
            for field in (IdeField.BLOCK_START, IdeField.POSITION, IdeField.BLOCK_END)
        )
        if self._is_transfer() and (
            not start <= position < end <= BUFFER_SIZE or (start | end) % SECTOR_SIZE
        ):
            raise BadBlock(f"byte {position} of a block at {start}-{end} in {BUFFER_SIZE} bytes")
        return start, position, end

    def _at_most(self, field: IdeField, most: int) -> int:
        value = self.word(field)
        if value > most:
            raise BadBlock(f"{field.name} {value:#x}, expected at most {most:#x}")
        return value

    def _bytes(self, field: IdeField) -> tuple[int, ...]:
        return tuple(self._memory.read(field + _FIRST_REGISTER, _REGISTERS))


def _geometry(sectors: int, heads: int, track: int) -> Geometry:
    """The geometry in force, with the cylinders that it leaves the drive."""
    default = Geometry.of(sectors)
    if (heads, track) == (default.heads, default.sectors):
        return default
    return Geometry(min(sectors // (heads * track), 0xFFFF), heads, track)
