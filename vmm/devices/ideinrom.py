"""An IDE channel that the ROM may keep (vmi/ide.py), and that comes back by itself.

While the ROM keeps it, the guest's port calls never get here; what does get here is a native
instruction. It finds the device as the calls have left it: the state is taken out of the
ROM's block first, and what the ROM had not handed over is stored.
"""

from vmi.ide import BLOCK_SIZE, BUFFER_SECTORS, IdeField, IdeRequest
from vmm.core.bus import Block
from vmm.core.saved import PART, Fields
from vmm.devices.disk import SECTOR_SIZE, DiskImage, WriteProtected
from vmm.devices.ide import IdeChannel
from vmm.devices.ideblock import BadBlock, ChannelBlock

__all__ = ["IdeInRom"]


class IdeInRom:
    """`channel` at its ports, and lent out. A channel with a device 1 is never lent."""

    block_size = BLOCK_SIZE

    SAVED = Fields({PART: "_channel"}, elsewhere="_block", wiring="ports")

    def __init__(self, channel: IdeChannel) -> None:
        self._channel = channel
        self.ports = channel.ports
        self._block: ChannelBlock | None = None

    @property
    def lent(self) -> bool:
        """Does the ROM keep it now?"""
        return self._block is not None

    @property
    def block_start(self) -> int | None:
        """Where the ROM keeps it, guest-physical; none while it does not."""
        return None if self._block is None else self._block.start

    def stay_lent(self, block: Block) -> None:
        """Of a machine that was saved while the ROM kept it: the block is as it was."""
        self._block = ChannelBlock(block)

    # ---- native accesses

    def read(self, port: int, size: int) -> int:
        """The device's answer, wherever it has been until now."""
        self.take_back()
        return self._channel.read(port, size)

    def write(self, port: int, size: int, value: int) -> None:
        """To the device, wherever it has been until now."""
        self.take_back()
        self._channel.write(port, size, value)

    def take_back(self) -> None:
        """End a loan; a block that makes no sense leaves the drive as after a reset."""
        if self._block is None:
            return
        block, self._block = self._block, None
        block.set_word(IdeField.OWNED, 0)
        drive = self._channel.drives[0]
        selected = control = 0
        try:
            selected, control = block.channel()
            if drive is not None:
                first, data = block.waiting()
                state = block.drive(drive.image.sectors)
                if data:
                    _write(drive.image, first, data)
                drive.restore(state)
        except BadBlock:
            if drive is not None:
                drive.reset()
        self._channel.restore(selected, control)

    # ---- the ROM's side

    def lend(self, block: Block) -> bool:
        """Let the ROM keep the channel from now on."""
        if self._channel.drives[1] is not None:
            return False
        self.take_back()
        self._block = ChannelBlock(block)
        self._block.store(self._channel)
        self._block.set_word(IdeField.OWNED, 1)
        return True

    def serve(self) -> bool:
        """Carry out what the block asks for; `DONE` says how far that went."""
        block = self._block
        if block is None:
            return False
        drive = self._channel.drives[0]
        request = block.word(IdeField.REQUEST)
        if drive is not None and request != IdeRequest.LINE:
            block.set_word(IdeField.DONE, _carry_out(block, drive.image, request))
        self._channel.level = bool(block.word(IdeField.LEVEL))
        return True


def _carry_out(block: ChannelBlock, image: DiskImage, request: int) -> int:
    first, sectors = block.pair(IdeField.FIRST), block.word(IdeField.SECTORS)
    if request == IdeRequest.FLUSH:
        try:
            image.flush()
        except OSError:
            return 0
        return 1
    if sectors > BUFFER_SECTORS or first + sectors > image.sectors:
        return 0
    if request == IdeRequest.WRITE:
        return _write(image, first, block.buffer(0, sectors * SECTOR_SIZE))
    if request == IdeRequest.READ:
        data = _read(image, first, sectors)
        block.fill_buffer(data)
        return len(data) // SECTOR_SIZE
    return 0


def _write(image: DiskImage, first: int, data: bytes) -> int:
    """Store sectors up to the first that cannot be stored; answers how many were."""
    for start in range(0, len(data), SECTOR_SIZE):
        number = start // SECTOR_SIZE
        try:
            image.write_sector(first + number, data[start : start + SECTOR_SIZE])
        except (OSError, WriteProtected, IndexError):
            return number
    return len(data) // SECTOR_SIZE


def _read(image: DiskImage, first: int, sectors: int) -> bytes:
    """Sectors up to the first that cannot be read."""
    data = bytearray()
    for number in range(first, first + sectors):
        try:
            data += image.read_sector(number)
        except OSError:
            break
    return bytes(data)
