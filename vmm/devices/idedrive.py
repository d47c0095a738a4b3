"""An ATA hard disk: its command block, and the PIO commands of ATA/ATAPI-6.

Commands take no time: a drive is never seen busy.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from typing import ClassVar

from vmm.core.saved import CUSTOM, FLAG, PART, U8, U32, VIRTUAL_TIME, BadState, Bytes, Fields
from vmm.devices.disk import SECTOR_SIZE, DiskImage, Writes
from vmm.devices.ideidentify import MULTIPLE_LIMIT, Geometry, identify_data

__all__ = ["DriveState", "Error", "IdeDrive", "Registers", "Status"]


class Status:
    """Bits of the status register."""

    READY = 0x40
    SEEK_COMPLETE = 0x10
    DATA_REQUEST = 0x08
    ERROR = 0x01


class Error:
    """Bits of the error register."""

    ID_NOT_FOUND = 0x10
    ABORTED = 0x04
    WRITE_PROTECTED = 0x40
    UNCORRECTABLE = 0x40
    """Of a read, where the image's file fails."""


_DIAGNOSTICS_PASSED = 0x01
_LBA = 0x40
_TRANSFER_MODE = 0x03
_FEATURES = frozenset({0x02, 0x82, 0x55, 0xAA, 0x66, 0xCC})
"""Write cache, read look-ahead and keeping settings over a reset, on and off: no effect."""
_TRANSFER_MODES = frozenset({0x00, 0x01, 0x08, 0x09, 0x0A, 0x0B, 0x0C})
"""PIO only: default, without IORDY, modes 0 to 4."""
_IDLE_OR_ACTIVE = 0xFF


@dataclass(slots=True)
class Registers:
    """The command block. Count and address have a byte written before the last (HOB)."""

    SAVED: ClassVar[Fields] = Fields(
        {
            U8: "features count low mid high device previous_count previous_low previous_mid "
            "previous_high"
        }
    )

    features: int = 0
    count: int = 1
    low: int = 1
    mid: int = 0
    high: int = 0
    device: int = 0
    previous_count: int = 0
    previous_low: int = 0
    previous_mid: int = 0
    previous_high: int = 0

    def sign(self) -> None:
        """The signature of an ATA device (ATA/ATAPI-6, section 9.12)."""
        self.count = self.low = 1
        self.mid = self.high = self.device = 0


@dataclass(slots=True)
class DriveState:
    """All that a drive is besides its image, so that somebody else can go on in its place.

    `data` is the block on its way through the data port, empty while none is, with the
    next byte at `position`; `block`, `left` and `next_sector` are those of its command.
    """

    registers: Registers
    error: int
    status: int
    interrupt: bool
    geometry: Geometry
    multiple: int
    data: bytes
    position: int
    incoming: bool
    wide: bool
    block: int
    left: int
    next_sector: int


class IdeDrive:
    """One drive. `interrupt` is true while it asks for service.

    Where the image's file fails a command ends with an error, and with the address of the
    sector in the registers.
    """

    SAVED = Fields(
        {
            PART: "registers _image",
            U8: "error status _multiple",
            FLAG: "interrupt _incoming _wide",
            Bytes(most=MULTIPLE_LIMIT * SECTOR_SIZE): "_buffer",
            U32: "_position _left _block",
            VIRTUAL_TIME: "_next",
            CUSTOM: "_geometry",
        },
        wiring="_default _commands",
    )

    def __init__(self, image: DiskImage) -> None:
        self._image = image
        self._default = Geometry.of(image.sectors)
        self._commands = self._command_table()
        self.registers = Registers()
        self.reset()
        self._geometry = self._default
        self._multiple = 0

    @property
    def image(self) -> DiskImage:
        """Its contents."""
        return self._image

    @property
    def state(self) -> DriveState:
        """What `restore` takes."""
        return DriveState(
            registers=replace(self.registers),
            error=self.error,
            status=self.status,
            interrupt=self.interrupt,
            geometry=self._geometry,
            multiple=self._multiple,
            data=bytes(self._buffer) if self.status & Status.DATA_REQUEST else b"",
            position=self._position,
            incoming=self._incoming,
            wide=self._wide,
            block=self._block,
            left=self._left,
            next_sector=self._next,
        )

    def restore(self, state: DriveState) -> None:
        """Go on from `state`; its numbers are the caller's to check."""
        self.registers = replace(state.registers)
        self.error, self.status, self.interrupt = state.error, state.status, state.interrupt
        self._geometry, self._multiple = state.geometry, state.multiple
        self._buffer, self._position = bytearray(state.data), state.position
        self._incoming, self._wide = state.incoming, state.wide
        self._block, self._left, self._next = state.block, state.left, state.next_sector

    def identify_data(self) -> bytes:
        """What IDENTIFY DEVICE answers now."""
        return identify_data(self._image.sectors, self._default, self._geometry, self._multiple)

    def _check_saved(self) -> None:
        """A transfer that stays within its buffer and the disk."""
        waiting = len(self._buffer) // SECTOR_SIZE if self._incoming else 0
        if (
            self._next + waiting > self._image.sectors
            or self._position > len(self._buffer)
            or self._multiple > MULTIPLE_LIMIT
            or self._block > MULTIPLE_LIMIT
            or len(self._buffer) % SECTOR_SIZE
        ):
            raise BadState(f"a transfer of {self._left} sectors at {self._next}")

    def _save_geometry(self) -> list[int]:
        """For `vmm.core.saved`."""
        return list(astuple(self._geometry))

    def _load_geometry(self, value: list[int]) -> None:
        """The same."""
        shape = Geometry(*value)
        if not (shape.cylinders >= 0 and 1 <= shape.heads <= 16 and 1 <= shape.sectors <= 255):
            raise ValueError(f"{shape}")
        self._geometry = shape

    def reset(self) -> None:
        """A reset by software; settings survive it."""
        self.registers.sign()
        self.error = _DIAGNOSTICS_PASSED
        self.status = Status.READY | Status.SEEK_COMPLETE
        self.interrupt = False
        self._buffer = bytearray()
        self._position = 0
        self._incoming = False
        self._next = 0
        self._left = 0
        self._block = 1
        self._wide = False

    def execute(self, command: int) -> None:
        """A store to the command register."""
        self.interrupt = False
        self.error = 0
        self.status = Status.READY | Status.SEEK_COMPLETE
        self._buffer = bytearray()
        action = self._commands.get(0x10 if command & 0xF0 == 0x10 else command)
        if action is None:
            self._fail(Error.ABORTED)
        else:
            action()

    def _command_table(self) -> dict[int, Callable[[], None]]:
        return {
            0x10: self._succeed,  # RECALIBRATE
            0x20: lambda: self._start_read(1),
            0x21: lambda: self._start_read(1),
            0x24: lambda: self._start_read(1, wide=True),
            0x29: lambda: self._start_read(self._multiple, wide=True),
            0x30: lambda: self._start_write(1),
            0x31: lambda: self._start_write(1),
            0x34: lambda: self._start_write(1, wide=True),
            0x39: lambda: self._start_write(self._multiple, wide=True),
            0x40: self._verify,
            0x41: self._verify,
            0x42: lambda: self._verify(wide=True),
            0x70: self._seek,
            0x90: self._diagnose,
            0x91: self._set_geometry,
            0xC4: lambda: self._start_read(self._multiple),
            0xC5: lambda: self._start_write(self._multiple),
            0xC6: self._set_multiple,
            0xE0: self._succeed,  # STANDBY IMMEDIATE
            0xE1: self._succeed,  # IDLE IMMEDIATE
            0xE2: self._succeed,  # STANDBY
            0xE3: self._succeed,  # IDLE
            0xE5: self._check_power,
            0xE7: self._flush,
            0xEA: self._flush,
            0xEC: self._identify,
            0xEF: self._set_features,
        }

    def _succeed(self) -> None:
        self.interrupt = True

    def _fail(self, error: int) -> None:
        self.error = error
        self.status = Status.READY | Status.SEEK_COMPLETE | Status.ERROR
        self.interrupt = True
        self._buffer = bytearray()
        self._left = 0

    # Where and how much

    def _address(self, *, wide: bool) -> int | None:
        """The first sector; none if cylinder, head and sector name none."""
        block = self.registers
        low = block.low | block.mid << 8 | block.high << 16
        if wide:
            upper = block.previous_low | block.previous_mid << 8 | block.previous_high << 16
            return upper << 24 | low
        head = block.device & 0x0F
        if block.device & _LBA:
            return head << 24 | low
        shape = self._geometry
        cylinder = block.mid | block.high << 8
        if not 1 <= block.low <= shape.sectors or head >= shape.heads:
            return None
        return (cylinder * shape.heads + head) * shape.sectors + block.low - 1

    def _show_address(self, sector: int, *, wide: bool) -> None:
        """Tell in the registers which sector a transfer has come to."""
        block = self.registers
        if not wide and not block.device & _LBA:
            track, number = divmod(sector, self._geometry.sectors)
            cylinder, head = divmod(track, self._geometry.heads)
            block.low, block.mid, block.high = number + 1, cylinder & 0xFF, cylinder >> 8 & 0xFF
            block.device = block.device & 0xF0 | head
            return
        block.low, block.mid, block.high = (sector >> shift & 0xFF for shift in (0, 8, 16))
        upper = [sector >> shift & 0xFF for shift in (24, 32, 40)]
        if wide:
            block.previous_low, block.previous_mid, block.previous_high = upper
        else:
            block.device = block.device & 0xF0 | upper[0] & 0x0F

    def _begin(self, block: int, *, wide: bool) -> bool:
        """Set up a transfer in blocks of so many sectors; fails when it cannot be done."""
        regs = self.registers
        count = regs.previous_count << 8 | regs.count if wide else regs.count
        self._left = count or (65536 if wide else 256)
        self._wide = wide
        self._block = block
        address = self._address(wide=wide)
        if block == 0:
            self._fail(Error.ABORTED)
            return False
        if address is None or address >= self._image.sectors:
            self._fail(Error.ID_NOT_FOUND)
            return False
        self._next = address
        return True

    def _out_of_range(self) -> None:
        self._show_address(self._next, wide=self._wide)
        self._fail(Error.ID_NOT_FOUND)

    # Data in

    def _start_read(self, block: int, *, wide: bool = False) -> None:
        self._incoming = False
        if self._begin(block, wide=wide):
            self._fetch()

    def _fetch(self) -> None:
        """Put the next block in the buffer and ask for it to be read."""
        count = min(self._block, self._left, self._image.sectors - self._next)
        if count == 0:
            self._out_of_range()
            return
        data = bytearray()
        for sector in range(self._next, self._next + count):
            try:
                data += self._image.read_sector(sector)
            except OSError:
                self._show_address(sector, wide=self._wide)
                self._fail(Error.UNCORRECTABLE)
                return
        self._show_address(self._next + count - 1, wide=self._wide)
        self._request(data, signal=True)
        self._next += count
        self._left -= count

    def _request(self, data: bytes | bytearray, *, signal: bool) -> None:
        self._buffer = bytearray(data)
        self._position = 0
        self.status |= Status.DATA_REQUEST
        self.interrupt = self.interrupt or signal

    def read_data(self, size: int) -> int:
        """`size` bytes from the data port, all ones when there is nothing to read."""
        if self._incoming or not self.status & Status.DATA_REQUEST:
            return (1 << (8 * size)) - 1
        value = int.from_bytes(self._buffer[self._position : self._position + size], "little")
        self._position += size
        if self._position >= len(self._buffer):
            self.status &= ~Status.DATA_REQUEST
            if self._left:
                self._fetch()
        return value

    # Data out

    def _start_write(self, block: int, *, wide: bool = False) -> None:
        if self._image.writes is Writes.REFUSE:
            self._fail(Error.ABORTED | Error.WRITE_PROTECTED)
        elif self._begin(block, wide=wide):
            self._incoming = True
            self._accept(signal=False)

    def _accept(self, *, signal: bool) -> None:
        """Ask for the next block to be written; only the first one comes without interrupt."""
        count = min(self._block, self._left, self._image.sectors - self._next)
        if count == 0:
            self._out_of_range()
        else:
            self._request(bytes(count * SECTOR_SIZE), signal=signal)

    def write_data(self, size: int, value: int) -> None:
        """`size` bytes to the data port; dropped when nobody asked for them."""
        if not self._incoming or not self.status & Status.DATA_REQUEST:
            return
        data = (value & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
        room = len(self._buffer) - self._position
        self._buffer[self._position : self._position + size] = data[:room]
        self._position += size
        if self._position >= len(self._buffer):
            self.status &= ~Status.DATA_REQUEST
            self._store()

    def _store(self) -> None:
        for start in range(0, len(self._buffer), SECTOR_SIZE):
            self._show_address(self._next, wide=self._wide)
            sector = bytes(self._buffer[start : start + SECTOR_SIZE])
            try:
                self._image.write_sector(self._next, sector)
            except OSError:
                self._fail(Error.ABORTED)
                return
            self._next += 1
            self._left -= 1
        if self._left:
            self._accept(signal=True)
        else:
            self._succeed()

    # Commands without data

    def _verify(self, *, wide: bool = False) -> None:
        if not self._begin(1, wide=wide):
            return
        left, self._left = self._left, 0
        self._next = min(self._next + left, self._image.sectors)
        if left > self._next - (self._address(wide=wide) or 0):
            self._out_of_range()
        else:
            self._show_address(self._next - 1, wide=wide)
            self._succeed()

    def _seek(self) -> None:
        address = self._address(wide=False)
        if address is None or address >= self._image.sectors:
            self._fail(Error.ID_NOT_FOUND)
        else:
            self._succeed()

    def _diagnose(self) -> None:
        self.registers.sign()
        self.error = _DIAGNOSTICS_PASSED
        self._succeed()

    def _set_geometry(self) -> None:
        """INITIALIZE DEVICE PARAMETERS: heads less one, and sectors per track."""
        heads, sectors = (self.registers.device & 0x0F) + 1, self.registers.count
        if not sectors:
            self._fail(Error.ABORTED)
            return
        cylinders = min(self._image.sectors // (heads * sectors), 0xFFFF)
        self._geometry = Geometry(cylinders, heads, sectors)
        self._succeed()

    def _set_multiple(self) -> None:
        count = self.registers.count
        if count > MULTIPLE_LIMIT or count & (count - 1):
            self._fail(Error.ABORTED)
        else:
            self._multiple = count
            self._succeed()

    def _check_power(self) -> None:
        self.registers.count = _IDLE_OR_ACTIVE
        self._succeed()

    def _flush(self) -> None:
        try:
            self._image.flush()
        except OSError:
            self._fail(Error.ABORTED)
        else:
            self._succeed()

    def _identify(self) -> None:
        self._incoming = False
        self._left = 0
        self._request(self.identify_data(), signal=True)

    def _set_features(self) -> None:
        block = self.registers
        known = block.features in _FEATURES or (
            block.features == _TRANSFER_MODE and block.count in _TRANSFER_MODES
        )
        if known:
            self._succeed()
        else:
            self._fail(Error.ABORTED)
