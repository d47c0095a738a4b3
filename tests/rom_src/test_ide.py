"""The ROM's IDE channels against the userspace device: the same answers, the same disk."""

from __future__ import annotations

import io
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from unicorn import x86_const as x86

from vmi.calls import PORT_CALLS
from vmi.doorbell import Doorbell, Feature
from vmi.ide import BLOCK_SIZE, BUFFER_SECTORS, BUFFER_SIZE, IdeField
from vmi.relocation import RelocationKind
from vmm.devices.disk import SECTOR_SIZE, DiskImage, Writes
from vmm.devices.ide import (
    PRIMARY_CONTROL,
    PRIMARY_PORTS,
    SECONDARY_CONTROL,
    SECONDARY_PORTS,
    IdeChannel,
)
from vmm.devices.idedrive import IdeDrive
from vmm.devices.ideinrom import IdeInRom
from vmm.devices.lines import LooseLine

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Machine, MachineFactory

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


@pytest.fixture
def made(machine: MachineFactory) -> Machine:
    return machine("batching", features=Feature.ATTACHED | Feature.IDE)


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


def test_the_calls_are_there_for_a_host_that_hands_the_channels_over(
    machine: MachineFactory,
) -> None:
    without = machine("batching")
    assert {without.reloc(n).kind for n in PORT_CALLS} == {RelocationKind.NONE}
    given = machine("batching", features=Feature.ATTACHED | Feature.IDE)
    assert {given.reloc(n).kind for n in PORT_CALLS} == {RelocationKind.CALL_REL}


def test_a_command_is_one_ring_for_a_buffer(made: Machine) -> None:
    rom, _ = rom_with(made, image())
    rom.write(PRIMARY_CONTROL, 1, NO_INTERRUPT)
    made.port_reads.clear()
    assert command(rom, 0x20, 7, 40) == DRQ
    data = b""
    for _ in range(40):
        assert rom.read(PRIMARY_PORTS + STATUS, 1) == DRQ
        data += rom.take(PRIMARY_PORTS, 2, 256)
    assert data == sector(7, 40)
    assert rom.read(PRIMARY_PORTS + STATUS, 1) == READY
    assert rom.rings == [Doorbell.IDE_TAKE, *[Doorbell.IDE_REQUEST] * 3]
    assert not made.port_reads
    assert not made.port_writes


def test_other_ports_stay_native(made: Machine) -> None:
    rom, _ = rom_with(made, image())
    made.port_reads.clear()
    made.port_value = lambda _number: 0xA5C3
    for port in (0x1EF, 0x1F8, 0x3F5, 0x3F7, 0x16F, 0x178, 0x375, 0x377, 0x60):
        assert rom.read(port, 1) == 0xC3
        rom.write(port, 2, port)
    assert [port for port, _ in made.port_reads] == [port for port, _ in made.port_writes]
    assert not rom.rings


def test_a_host_that_keeps_the_channel_leaves_the_call_native(made: Machine) -> None:
    channel = IdeChannel(
        LooseLine(), PRIMARY_PORTS, PRIMARY_CONTROL, IdeDrive(image()), IdeDrive(image())
    )
    rom = Rom(made, channel)
    made.port_value = lambda _number: 0x77
    assert rom.read(PRIMARY_PORTS + STATUS, 1) == 0x77
    assert rom.rings == [Doorbell.IDE_TAKE]


def test_the_interrupt_line_follows(made: Machine) -> None:
    rom, line = rom_with(made, image())
    command(rom, 0x20, 7, 2)
    assert line.level
    assert rom.read(PRIMARY_PORTS + STATUS, 1) == DRQ
    assert not line.level
    rom.take(PRIMARY_PORTS, 2, 256)
    assert line.level, "the second sector"
    rom.write(PRIMARY_CONTROL, 1, NO_INTERRUPT)
    assert not line.level
    rom.write(PRIMARY_CONTROL, 1, 0)
    assert line.level
    rom.write(PRIMARY_PORTS + DEVICE, 1, 0x10)
    assert not line.level, "device 1 does not ask"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_strings_go_down_too(made: Machine, size: int) -> None:
    rom, _ = rom_with(made, image())
    command(rom, 0x20, 3)
    count = SECTOR_SIZE // size
    top = BUFFER + SECTOR_SIZE - size
    rom.go(f"INS{SUFFIX[size]}", backwards=True, edx=PRIMARY_PORTS, ecx=count, edi=top)
    assert made.register("edi") == BUFFER - size
    data = bytes(made.uc.mem_read(BUFFER, SECTOR_SIZE))
    elements = [data[at : at + size] for at in range(0, SECTOR_SIZE, size)]
    assert b"".join(reversed(elements)) == sector(3)
    command(rom, 0x30, 9)
    rom.go(f"OUTS{SUFFIX[size]}", backwards=True, edx=PRIMARY_PORTS, ecx=count, esi=top)
    assert rom.read(PRIMARY_CONTROL, 1) == READY
    command(rom, 0x20, 9)
    assert rom.take(PRIMARY_PORTS, 2, 256) == sector(3)


def test_both_channels_at_once(made: Machine) -> None:
    other = random.Random(2).randbytes(64 * SECTOR_SIZE)  # noqa: S311
    first, _ = new_channel(image())
    second, _ = new_channel(image(data=other), SECONDARY_PORTS, SECONDARY_CONTROL)
    rom = Rom(made, first, second)
    for base in (PRIMARY_PORTS, SECONDARY_PORTS):
        rom.write(base + COUNT, 1, 2)
        rom.write(base + LOW, 1, 5)
        rom.write(base + DEVICE, 1, LBA)
        rom.write(base + COMMAND, 1, 0x20)
    halves: dict[int, list[bytes]] = {PRIMARY_PORTS: [], SECONDARY_PORTS: []}
    for _ in range(4):
        for base, parts in halves.items():
            parts.append(rom.take(base, 4, 64))
    assert b"".join(halves[PRIMARY_PORTS]) == sector(5, 2)
    assert b"".join(halves[SECONDARY_PORTS]) == other[5 * SECTOR_SIZE : 7 * SECTOR_SIZE]


# ---- random commands

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
    made: Machine, seed: int, commands: int, writes: Writes, sectors: int, native: float
) -> Driver:
    data = CONTENT[: sectors * SECTOR_SIZE]
    disks = image(writes, data), image(writes, data)
    rom, line = rom_with(made, disks[0])
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
    made: Machine, seed: int, commands: int, writes: Writes, sectors: int, native: float
) -> None:
    """10,000 commands, good and bad ones; in the last case some accesses are native."""
    driver = drive_both(made, seed, commands, writes, sectors, native)
    assert sum(driver.seen.values()) == commands
    shares = {status: seen / commands for status, seen in driver.seen.items()}
    assert shares[0x08] > (0.1 if writes is Writes.REFUSE else 0.2), "commands with data"
    assert shares[0x01] > 0.1, "commands that fail"
    assert shares[0x00] > 0.05, "commands without data"
    assert shares[0x80] < 0.2, "commands during a reset"
    takes = driver.one.rings.count(Doorbell.IDE_TAKE)
    assert (takes > 100) == bool(native)
    assert not made.port_reads[1:]


def test_no_drive_at_all(made: Machine) -> None:
    rom, line = rom_with(made, None)
    plain, other_line = new_channel(None)
    driver = Driver(5, rom, Plain(plain), (line, other_line), 0.0)
    for _ in range(200):
        driver.one_command()
    assert rom.read(PRIMARY_PORTS + STATUS, 1) == 0x7F


# ---- when the disk fails


@pytest.mark.parametrize("code", [0x20, 0xC4])
def test_a_sector_that_cannot_be_read(made: Machine, code: int) -> None:
    """What lies before it comes over; the registers name it."""
    files = Bad(CONTENT), Bad(CONTENT)
    channel, _ = new_channel(DiskImage(files[0]))
    other, _ = new_channel(DiskImage(files[1]))
    for file in files:
        file.bad = {26}
    taken = []
    for host in (Rom(made, channel), Plain(other)):
        command(host, 0xC6, 0, 4)
        data, status = b"", command(host, code, 7, 40)
        while status & 0x08:
            data += host.take(PRIMARY_PORTS, 2, 256)
            status = host.read(PRIMARY_CONTROL, 1)
        assert status == ERR
        assert host.read(PRIMARY_PORTS + ERROR, 1) == 0x40
        assert host.read(PRIMARY_PORTS + LOW, 1) == 26
        taken.append(data)
    assert taken[0] == taken[1] == sector(7, {0x20: 19, 0xC4: 16}[code])


def test_a_sector_that_cannot_be_written(made: Machine, tmp_path: Path) -> None:
    """The command says so before it ends, and names the sector; what lies before it is stored."""
    file = Bad(CONTENT)
    disk = DiskImage(file, Writes.THROUGH)
    channel, _ = new_channel(disk)
    rom = Rom(made, channel)
    file.bad = {109}
    data = bytes(12 * SECTOR_SIZE)
    assert command(rom, 0x30, 100, 12) == DRQ
    rom.give(PRIMARY_PORTS, 2, data)
    assert rom.read(PRIMARY_CONTROL, 1) == ERR
    assert rom.read(PRIMARY_PORTS + ERROR, 1) == 0x04
    assert rom.read(PRIMARY_PORTS + LOW, 1) == 109
    file.bad = set()
    assert [disk.read_sector(n) == bytes(SECTOR_SIZE) for n in range(100, 112)] == (
        [True] * 9 + [False] * 3
    )


def test_a_write_that_was_left_and_failed_is_told_by_the_next_flush(made: Machine) -> None:
    file = Bad(CONTENT)
    channel, _ = new_channel(DiskImage(file, Writes.THROUGH))
    rom = Rom(made, channel)
    file.bad = {100}
    command(rom, 0x30, 100, 12)
    rom.give(PRIMARY_PORTS, 2, bytes(2 * SECTOR_SIZE))
    assert command(rom, 0xE5) == READY
    assert command(rom, 0xE7) == ERR
    assert command(rom, 0xE7) == READY
    file.flushes_fail = True
    assert command(rom, 0xE7) == ERR


def test_a_read_only_disk_takes_nothing(made: Machine) -> None:
    rom, _ = rom_with(made, image(Writes.REFUSE))
    assert command(rom, 0x30, 5) == ERR
    assert rom.read(PRIMARY_PORTS + ERROR, 1) == 0x44
    rom.give(PRIMARY_PORTS, 2, bytes(SECTOR_SIZE))
    assert command(rom, 0x20, 5) == DRQ
    assert rom.take(PRIMARY_PORTS, 2, 256) == sector(5)


@pytest.mark.parametrize("seed", range(8))
def test_power_loss(made: Machine, tmp_path: Path, seed: int) -> None:
    """The machine stops at any access; what was flushed is in the file, and so is nothing else
    but sectors that were written."""
    pick = random.Random(seed)  # noqa: S311
    path = tmp_path / "disk.img"
    before = CONTENT[: 64 * SECTOR_SIZE]
    path.write_bytes(before)
    with path.open("r+b") as file:
        channel, _ = new_channel(DiskImage(file, Writes.THROUGH))
        rom = Rom(made, channel)
        versions = [{before[at : at + SECTOR_SIZE]} for at in range(0, len(before), SECTOR_SIZE)]
        for _ in range(pick.randrange(20, 60)):
            first, count = pick.randrange(40), pick.randrange(1, 24)
            given = pick.choice((count, count, pick.randrange(count + 1)))
            data = [pick.randbytes(SECTOR_SIZE) for _ in range(given)]
            command(rom, 0x30, first, count)
            rom.give(PRIMARY_PORTS, 4, b"".join(data))
            for number, content in enumerate(data, first):
                versions[number].add(content)
            if pick.random() < 0.4:
                assert command(rom, 0xE7) == READY
                survivors = path.read_bytes()
                for number in range(64):
                    newest = survivors[number * SECTOR_SIZE : (number + 1) * SECTOR_SIZE]
                    assert newest in versions[number]
                    versions[number] = {newest}
                for number, content in enumerate(data, first):
                    assert versions[number] == {content}, "flushed, and not there"
        survivors = path.read_bytes()
    for number in range(64):
        assert survivors[number * SECTOR_SIZE : (number + 1) * SECTOR_SIZE] in versions[number]


# ---- what a block may say


FIELDS: list[tuple[IdeField, int]] = [
    (IdeField.POSITION, BUFFER_SIZE),
    (IdeField.BLOCK_START, 513),
    (IdeField.BLOCK_END, BUFFER_SIZE + SECTOR_SIZE),
    (IdeField.BLOCK_END, 0xFFFFFE00),
    (IdeField.NEXT, SECTORS + 1),
    (IdeField.NEXT + 4, 1),  # type: ignore[list-item]
    (IdeField.LEFT, 0xFFFFFFFF),
    (IdeField.HEADS, 0),
    (IdeField.TRACK, 256),
    (IdeField.MULTIPLE, 3),
    (IdeField.SELECTED, 2),
    (IdeField.STATUS, 0x100),
]


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_a_block_that_makes_no_sense_is_a_reset(made: Machine, field: int, value: int) -> None:
    disk = image()
    channel, _ = new_channel(disk)
    rom = Rom(made, channel)
    assert command(rom, 0x30, 5, 3) == DRQ
    made.write(rom.views[0][0] + field, value)
    native = rom.native(0)
    assert native.read(PRIMARY_PORTS + STATUS, 1) == READY
    assert native.read(PRIMARY_PORTS + LOW, 1) == 1
    assert disk.changed_sectors == 0


@pytest.mark.parametrize(
    ("first", "sectors"),
    [(SECTORS - 1, 2), (0, BUFFER_SECTORS + 1), (SECTORS, 1), (1 << 63, 1), (0, 0xFFFFFFFF)],
)
@pytest.mark.parametrize("request_kind", [1, 2, 4, 0xFFFFFFFF])
def test_a_request_beyond_the_disk_or_the_buffer_does_nothing(
    request_kind: int, first: int, sectors: int
) -> None:
    disk = image()
    channel, _ = new_channel(disk)
    lent = IdeInRom(channel)
    block = bytearray(BLOCK_SIZE)
    assert lent.lend(Loose(block))
    before = bytes(block)
    block[IdeField.REQUEST : IdeField.REQUEST + 4] = request_kind.to_bytes(4, "little")
    block[IdeField.FIRST : IdeField.FIRST + 8] = first.to_bytes(8, "little")
    block[IdeField.SECTORS : IdeField.SECTORS + 4] = sectors.to_bytes(4, "little")
    assert lent.serve()
    assert disk.changed_sectors == 0
    assert bytes(block[IdeField.BUFFER :]) == before[IdeField.BUFFER :]
    assert not any(block[IdeField.DONE : IdeField.DONE + 4])
