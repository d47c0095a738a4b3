"""Random drivers of the ROM's IDE channels and of the userspace device cannot tell them apart."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from idehosts import (
    COMMAND,
    CONTENT,
    COUNT,
    DEVICE,
    ERROR,
    FEATURES,
    HIGH,
    LOW,
    MID,
    SECTORS,
    STATUS,
    Plain,
    Rom,
    image,
    new_channel,
    rom_with,
)
from vmi.doorbell import Doorbell
from vmm.devices.disk import SECTOR_SIZE, DiskImage, Writes
from vmm.devices.ide import (
    PRIMARY_CONTROL,
    PRIMARY_PORTS,
)
from vmm.devices.ideinrom import IdeInRom
from vmm.devices.lines import LooseLine

if TYPE_CHECKING:
    from conftest import Machine


CODES = (
    *(0x20, 0x21, 0x24, 0x29, 0x30, 0x31, 0x34, 0x39, 0xC4, 0xC5) * 3,
    *(0x10, 0x1F, 0x40, 0x41, 0x42, 0x70, 0x90, 0x91, 0xC6, 0xE0, 0xE1, 0xE2, 0xE3, 0xE5),
    *(0xE7, 0xEA, 0xEC, 0xEF, 0xC6, 0xC6, 0x00, 0x22, 0x35, 0x50, 0xA1, 0xC8, 0xF5, 0xFF),
)


class Driver:
    """One random driver for two channels, which must not be told apart."""

    def __init__(
        self, seed: int, one: Rom, other: Plain, lines: tuple[LooseLine, LooseLine], native: float
    ) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.one, self.other, self.lines = one, other, lines
        self.native = native
        self.middle = max(1, one.sectors // 256)
        self.seen: Counter[int] = Counter()
        """By what status commands were answered: busy, data request, error."""

    def _host(self) -> Rom | IdeInRom:
        if self.random.random() < self.native:
            return self.one.native(0)
        return self.one

    def read(self, port: int, size: int = 1) -> int:
        value = self._host().read(port, size)
        assert value == self.other.read(port, size), f"port {port:#x}"
        assert self.lines[0].level == self.lines[1].level
        return value

    def write(self, port: int, value: int, size: int = 1) -> None:
        self._host().write(port, size, value)
        self.other.write(port, size, value)
        assert self.lines[0].level == self.lines[1].level

    def look(self) -> None:
        """All registers, in a register's or a random width."""
        for register in (ERROR, COUNT, LOW, MID, HIGH, DEVICE):
            self.read(PRIMARY_PORTS + register)
        self.read(PRIMARY_PORTS + self.random.randrange(1, 8), self.random.choice((2, 4)))

    def one_command(self) -> None:
        pick = self.random
        if pick.random() < 0.05:
            self.write(PRIMARY_CONTROL, pick.choice((0, 2, 4, 6, 0x80, 0x82)))
        elif pick.random() < 0.5:
            self.write(PRIMARY_CONTROL, pick.choice((0, 2)))
        self.registers()
        code = pick.choice(CODES)
        self.write(PRIMARY_PORTS + COMMAND, code)
        status = self.read(PRIMARY_CONTROL)
        self.seen[status & 0x89] += 1
        self.transfer()
        if pick.random() < 0.2:
            self.look()
        if pick.random() < 0.03:
            self.write(PRIMARY_CONTROL, 0x04)
            self.read(PRIMARY_PORTS + STATUS)
            self.write(PRIMARY_CONTROL, pick.choice((0, 2)))

    def registers(self) -> None:
        """Where and how much: anything, or a place on the disk."""
        pick = self.random
        for register in (FEATURES, COUNT, LOW, MID, HIGH):
            if pick.random() < 0.4:
                self.write(PRIMARY_PORTS + register, self._value(register))
        if pick.random() < 0.6:
            device = pick.choice((0xE0, 0xE0, 0xE0, 0xA0, 0xA0, 0x40, 0xA1, 0xF0, 0xEF, 0xA7))
            self.write(PRIMARY_PORTS + DEVICE, device)
        if pick.random() < 0.7:
            # Somewhere on the disk, and twice, so that what was written before is in order, too.
            count = pick.choice((1, 2, 3, 5, 17, 20))
            for value in (0, count):
                self.write(PRIMARY_PORTS + COUNT, value)
            for register, values in ((LOW, 60), (MID, self.middle), (HIGH, 1)):
                self.write(PRIMARY_PORTS + register, 0)
                self.write(PRIMARY_PORTS + register, pick.randrange(values))

    def _value(self, register: int) -> int:
        pick = self.random
        if register == FEATURES:
            return pick.choice((0x02, 0x03, 0x82, 0x55, 0xAA, 0x66, 0xCC, 0x10))
        if register == COUNT:
            return pick.choice((0, 1, 2, 4, 8, 16, 9, 255))
        if register in {MID, HIGH}:
            return pick.choice((0, 0, 0, 1, 5, 11, 255))
        return pick.randrange(256)

    def transfer(self) -> None:
        """Some blocks, all of them, none, or what nobody asked for."""
        pick = self.random
        for _ in range(pick.choice((0, 1, 2, 3, 40))):
            status = self.read(pick.choice((PRIMARY_PORTS + STATUS, PRIMARY_CONTROL)))
            if status & 0x08 or pick.random() < 0.1:
                size = pick.choice((4, 4, 4, 2, 1))
                count = pick.choice((SECTOR_SIZE // size, SECTOR_SIZE // size, pick.randrange(200)))
                self.string(size, count, into=pick.random() < 0.5)
            else:
                break
        if pick.random() < 0.1:
            self.read(PRIMARY_PORTS, pick.choice((1, 2, 4)))
            self.write(PRIMARY_PORTS, pick.getrandbits(32), pick.choice((1, 2, 4)))

    def string(self, size: int, count: int, *, into: bool) -> None:
        if into:
            data = self.random.randbytes(size * count)
            host: Rom | Plain = self.one
            if self.random.random() < self.native:
                host = Plain(self.one.native(0))  # type: ignore[arg-type]
            host.give(PRIMARY_PORTS, size, data)
            self.other.give(PRIMARY_PORTS, size, data)
        else:
            host = self.one
            if self.random.random() < self.native:
                host = Plain(self.one.native(0))  # type: ignore[arg-type]
            taken = host.take(PRIMARY_PORTS, size, count)
            assert taken == self.other.take(PRIMARY_PORTS, size, count)
        assert self.lines[0].level == self.lines[1].level


def contents(disk: DiskImage) -> list[bytes]:
    return [disk.read_sector(number) for number in range(disk.sectors)]


def drive_both(
    ide_machine: Machine, seed: int, commands: int, writes: Writes, sectors: int, native: float
) -> Driver:
    data = CONTENT[: sectors * SECTOR_SIZE]
    disks = image(writes, data), image(writes, data)
    rom, line = rom_with(ide_machine, disks[0])
    channel, other_line = new_channel(disks[1])
    driver = Driver(seed, rom, Plain(channel), (line, other_line), native)
    for number in range(commands):
        try:
            driver.one_command()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, command {number}: {error}") from error
    rom.native(0)
    assert rom.channels[0].lent is False
    assert contents(disks[0]) == contents(disks[1])
    assert (writes is Writes.REFUSE) == (disks[0].changed_sectors == 0)
    return driver


@pytest.mark.parametrize(
    ("seed", "commands", "writes", "sectors", "native"),
    [
        (1, 4000, Writes.OVERLAY, SECTORS, 0.0),
        (2, 3000, Writes.OVERLAY, 61, 0.0),
        (3, 1000, Writes.REFUSE, SECTORS, 0.0),
        (4, 2000, Writes.OVERLAY, SECTORS, 0.05),
    ],
    ids=["large", "small", "read-only", "mixed"],
)
def test_random_commands(
    ide_machine: Machine, seed: int, commands: int, writes: Writes, sectors: int, native: float
) -> None:
    """10,000 commands, good and bad ones; in the last case some accesses are native."""
    driver = drive_both(ide_machine, seed, commands, writes, sectors, native)
    assert sum(driver.seen.values()) == commands
    shares = {status: seen / commands for status, seen in driver.seen.items()}
    assert shares[0x08] > (0.1 if writes is Writes.REFUSE else 0.2), "commands with data"
    assert shares[0x01] > 0.1, "commands that fail"
    assert shares[0x00] > 0.05, "commands without data"
    assert shares[0x80] < 0.2, "commands during a reset"
    takes = driver.one.rings.count(Doorbell.IDE_TAKE)
    assert (takes > 100) == bool(native)
    assert not ide_machine.port_reads[1:]


def test_no_drive_at_all(ide_machine: Machine) -> None:
    rom, line = rom_with(ide_machine, None)
    plain, other_line = new_channel(None)
    driver = Driver(5, rom, Plain(plain), (line, other_line), 0.0)
    for _ in range(200):
        driver.one_command()
    assert rom.read(PRIMARY_PORTS + STATUS, 1) == 0x7F
