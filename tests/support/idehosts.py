"""IDE channels as a ROM has them and as the userspace device does, in the same terms."""

from __future__ import annotations

import io
import random
from typing import TYPE_CHECKING

from unicorn import x86_const as x86

from vmi.doorbell import Doorbell
from vmi.ide import BLOCK_SIZE, IdeField
from vmm.devices.disk import SECTOR_SIZE, DiskImage, Writes
from vmm.devices.ide import (
    PRIMARY_CONTROL,
    PRIMARY_PORTS,
    IdeChannel,
)
from vmm.devices.idedrive import IdeDrive
from vmm.devices.ideinrom import IdeInRom
from vmm.devices.lines import LooseLine

if TYPE_CHECKING:
    from conftest import Machine

DATA, ERROR, COUNT, LOW, MID, HIGH, DEVICE, STATUS = range(8)
FEATURES, COMMAND = ERROR, STATUS
READY, DRQ, ERR = 0x50, 0x58, 0x51
LBA = 0x40
NO_INTERRUPT, SOFT_RESET, PREVIOUS = 0x02, 0x04, 0x80
BUFFER = 0xC0500000
SECTORS = 3000
CONTENT = random.Random(1).randbytes(SECTORS * SECTOR_SIZE)  # noqa: S311
SUFFIX = {1: "B", 2: "W", 4: ""}
FLAGS = 0x8D7
"""All status flags set, interrupts off: what a call gives back unchanged."""
ALL_ONES = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFFFFFF}


class Bad(io.BytesIO):
    """A file that fails where it is told to."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.bad: set[int] = set()
        self.flushes_fail = False

    def _check(self) -> None:
        if self.tell() // SECTOR_SIZE in self.bad:
            raise OSError("the medium is bad there")

    def read(self, size: int | None = -1, /) -> bytes:
        self._check()
        return super().read(size)

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._check()
        return super().write(data)

    def flush(self) -> None:
        if self.flushes_fail:
            raise OSError("no room left")


def new_channel(
    disk: DiskImage | None, base: int = PRIMARY_PORTS, control: int = PRIMARY_CONTROL
) -> tuple[IdeChannel, LooseLine]:
    line = LooseLine()
    return IdeChannel(line, base, control, None if disk is None else IdeDrive(disk)), line


class Loose:
    """A block in a buffer of the test's; a `vmm.core.bus.Block`."""

    def __init__(self, data: bytearray) -> None:
        self.data = data

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= BLOCK_SIZE
        self.data[offset : offset + len(data)] = data


class Rom:
    """Channels in the ROM, reached by its port calls; `channels` are what it was given."""

    def __init__(self, machine: Machine, *channels: IdeChannel) -> None:
        self.machine = machine
        self.channels = [IdeInRom(channel) for channel in channels]
        self.sectors = channels[0].drives[0].image.sectors if channels[0].drives[0] else 0
        self.views: dict[int, tuple[int, bytearray]] = {}
        self.rings: list[Doorbell] = []
        self.calls = {name: machine.address_of(name) for name in ("INB", "INW", "IN")}
        self.calls |= {name: machine.address_of(name) for name in ("OUTB", "OUTW", "OUT")}
        self.calls |= {name: machine.address_of(name) for name in ("INSB", "INSW", "INS")}
        self.calls |= {name: machine.address_of(name) for name in ("OUTSB", "OUTSW", "OUTS")}
        machine.ring = self.ring

    def ring(self, function: Doorbell, argument: int) -> int:
        """The monitor's side. The device works on a copy, which is brought up to date."""
        self.rings.append(function)
        if function is Doorbell.IDE_TAKE:
            number = self.machine.read(argument + IdeField.NUMBER)
            self.views[number] = (argument, bytearray(BLOCK_SIZE))
            self.fetch(number)
            answer = self.channels[number].lend(Loose(self.views[number][1]))
        else:
            assert function is Doorbell.IDE_REQUEST
            number = argument
            self.fetch(number)
            answer = self.channels[number].serve()
        self.store(number)
        return int(answer)

    def fetch(self, number: int) -> None:
        address, view = self.views[number]
        view[:] = self.machine.uc.mem_read(address, BLOCK_SIZE)

    def store(self, number: int) -> None:
        address, view = self.views[number]
        self.machine.uc.mem_write(address, bytes(view))

    def native(self, number: int) -> IdeInRom:
        """The channel for a native access, which takes it back."""
        if self.channels[number].lent:
            self.fetch(number)
            self.channels[number].take_back()
            self.store(number)
        return self.channels[number]

    # The calls

    def go(self, name: str, *, backwards: bool = False, **registers: int) -> None:
        machine = self.machine
        machine.prepare(self.calls[name], **registers)
        flags = FLAGS | (0x400 if backwards else 0)
        machine.uc.reg_write(x86.UC_X86_REG_EFLAGS, flags)
        machine.finish(limit=2_000_000)
        assert machine.uc.reg_read(x86.UC_X86_REG_EFLAGS) & FLAGS == FLAGS
        assert machine.register("edx") == registers["edx"]

    def read(self, port: int, size: int) -> int:
        self.go(f"IN{SUFFIX[size]}", edx=port, eax=0x11223344)
        value = self.machine.register("eax")
        mask = ALL_ONES[size]
        assert value & ~mask == 0x11223344 & ~mask
        return value & mask

    def write(self, port: int, size: int, value: int) -> None:
        self.go(f"OUT{SUFFIX[size]}", edx=port, eax=value)

    def take(self, port: int, size: int, count: int) -> bytes:
        self.go(f"INS{SUFFIX[size]}", edx=port, ecx=count, edi=BUFFER)
        assert self.machine.register("ecx") == 0
        assert self.machine.register("edi") == BUFFER + size * count
        return bytes(self.machine.uc.mem_read(BUFFER, size * count))

    def give(self, port: int, size: int, data: bytes) -> None:
        self.machine.uc.mem_write(BUFFER, data)
        count = len(data) // size
        self.go(f"OUTS{SUFFIX[size]}", edx=port, ecx=count, esi=BUFFER)
        assert self.machine.register("esi") == BUFFER + size * count


class Plain:
    """The userspace device, in the same terms."""

    def __init__(self, channel: IdeChannel) -> None:
        self.channel = channel
        self.read, self.write = channel.read, channel.write

    def take(self, port: int, size: int, count: int) -> bytes:
        return b"".join(self.read(port, size).to_bytes(size, "little") for _ in range(count))

    def give(self, port: int, size: int, data: bytes) -> None:
        for at in range(0, len(data), size):
            self.write(port, size, int.from_bytes(data[at : at + size], "little"))


def rom_with(made: Machine, disk: DiskImage | None) -> tuple[Rom, LooseLine]:
    channel, line = new_channel(disk)
    return Rom(made, channel), line


def image(writes: Writes = Writes.OVERLAY, data: bytes = CONTENT) -> DiskImage:
    return DiskImage(io.BytesIO(data), writes)


def sector(number: int, count: int = 1) -> bytes:
    return CONTENT[number * SECTOR_SIZE : (number + count) * SECTOR_SIZE]


def command(host: Rom | Plain, code: int, lba: int = 0, count: int = 1) -> int:
    for register, value in ((COUNT, count), (LOW, lba), (MID, lba >> 8), (HIGH, lba >> 16)):
        host.write(PRIMARY_PORTS + register, 1, value & 0xFF)
    host.write(PRIMARY_PORTS + DEVICE, 1, LBA | lba >> 24 & 0x0F)
    host.write(PRIMARY_PORTS + COMMAND, 1, code)
    return host.read(PRIMARY_CONTROL, 1)
