"""The ROM's IDE channels against the userspace device: the same answers, the same disk."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from idehosts import (
    BUFFER,
    COMMAND,
    CONTENT,
    COUNT,
    DEVICE,
    DRQ,
    ERR,
    ERROR,
    LBA,
    LOW,
    NO_INTERRUPT,
    READY,
    SECTORS,
    STATUS,
    SUFFIX,
    Bad,
    Loose,
    Plain,
    Rom,
    command,
    image,
    new_channel,
    rom_with,
    sector,
)
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


def test_the_calls_are_there_for_a_host_that_hands_the_channels_over(
    machine: MachineFactory,
) -> None:
    without = machine("batching")
    assert {without.reloc(n).kind for n in PORT_CALLS} == {RelocationKind.NONE}
    given = machine("batching", features=Feature.ATTACHED | Feature.IDE)
    assert {given.reloc(n).kind for n in PORT_CALLS} == {RelocationKind.CALL_REL}


def test_a_command_is_one_ring_for_a_buffer(ide_machine: Machine) -> None:
    rom, _ = rom_with(ide_machine, image())
    rom.write(PRIMARY_CONTROL, 1, NO_INTERRUPT)
    ide_machine.port_reads.clear()
    assert command(rom, 0x20, 7, 40) == DRQ
    data = b""
    for _ in range(40):
        assert rom.read(PRIMARY_PORTS + STATUS, 1) == DRQ
        data += rom.take(PRIMARY_PORTS, 2, 256)
    assert data == sector(7, 40)
    assert rom.read(PRIMARY_PORTS + STATUS, 1) == READY
    assert rom.rings == [Doorbell.IDE_TAKE, *[Doorbell.IDE_REQUEST] * 3]
    assert not ide_machine.port_reads
    assert not ide_machine.port_writes


def test_other_ports_stay_native(ide_machine: Machine) -> None:
    rom, _ = rom_with(ide_machine, image())
    ide_machine.port_reads.clear()
    ide_machine.port_value = lambda _number: 0xA5C3
    for port in (0x1EF, 0x1F8, 0x3F5, 0x3F7, 0x16F, 0x178, 0x375, 0x377, 0x60):
        assert rom.read(port, 1) == 0xC3
        rom.write(port, 2, port)
    assert [port for port, _ in ide_machine.port_reads] == [
        port for port, _ in ide_machine.port_writes
    ]
    assert not rom.rings


def test_a_host_that_keeps_the_channel_leaves_the_call_native(ide_machine: Machine) -> None:
    channel = IdeChannel(
        LooseLine(), PRIMARY_PORTS, PRIMARY_CONTROL, IdeDrive(image()), IdeDrive(image())
    )
    rom = Rom(ide_machine, channel)
    ide_machine.port_value = lambda _number: 0x77
    assert rom.read(PRIMARY_PORTS + STATUS, 1) == 0x77
    assert rom.rings == [Doorbell.IDE_TAKE]


def test_the_interrupt_line_follows(ide_machine: Machine) -> None:
    rom, line = rom_with(ide_machine, image())
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
def test_strings_go_down_too(ide_machine: Machine, size: int) -> None:
    rom, _ = rom_with(ide_machine, image())
    command(rom, 0x20, 3)
    count = SECTOR_SIZE // size
    top = BUFFER + SECTOR_SIZE - size
    rom.go(f"INS{SUFFIX[size]}", backwards=True, edx=PRIMARY_PORTS, ecx=count, edi=top)
    assert ide_machine.register("edi") == BUFFER - size
    data = bytes(ide_machine.uc.mem_read(BUFFER, SECTOR_SIZE))
    elements = [data[at : at + size] for at in range(0, SECTOR_SIZE, size)]
    assert b"".join(reversed(elements)) == sector(3)
    command(rom, 0x30, 9)
    rom.go(f"OUTS{SUFFIX[size]}", backwards=True, edx=PRIMARY_PORTS, ecx=count, esi=top)
    assert rom.read(PRIMARY_CONTROL, 1) == READY
    command(rom, 0x20, 9)
    assert rom.take(PRIMARY_PORTS, 2, 256) == sector(3)


def test_both_channels_at_once(ide_machine: Machine) -> None:
    other = random.Random(2).randbytes(64 * SECTOR_SIZE)  # noqa: S311
    first, _ = new_channel(image())
    second, _ = new_channel(image(data=other), SECONDARY_PORTS, SECONDARY_CONTROL)
    rom = Rom(ide_machine, first, second)
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


# ---- when the disk fails


@pytest.mark.parametrize("code", [0x20, 0xC4])
def test_a_sector_that_cannot_be_read(ide_machine: Machine, code: int) -> None:
    """What lies before it comes over; the registers name it."""
    files = Bad(CONTENT), Bad(CONTENT)
    channel, _ = new_channel(DiskImage(files[0]))
    other, _ = new_channel(DiskImage(files[1]))
    for file in files:
        file.bad = {26}
    taken = []
    for host in (Rom(ide_machine, channel), Plain(other)):
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


def test_a_sector_that_cannot_be_written(ide_machine: Machine, tmp_path: Path) -> None:
    """The command says so before it ends, and names the sector; what lies before it is stored."""
    file = Bad(CONTENT)
    disk = DiskImage(file, Writes.THROUGH)
    channel, _ = new_channel(disk)
    rom = Rom(ide_machine, channel)
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


def test_a_write_that_was_left_and_failed_is_told_by_the_next_flush(ide_machine: Machine) -> None:
    file = Bad(CONTENT)
    channel, _ = new_channel(DiskImage(file, Writes.THROUGH))
    rom = Rom(ide_machine, channel)
    file.bad = {100}
    command(rom, 0x30, 100, 12)
    rom.give(PRIMARY_PORTS, 2, bytes(2 * SECTOR_SIZE))
    assert command(rom, 0xE5) == READY
    assert command(rom, 0xE7) == ERR
    assert command(rom, 0xE7) == READY
    file.flushes_fail = True
    assert command(rom, 0xE7) == ERR


def test_a_read_only_disk_takes_nothing(ide_machine: Machine) -> None:
    rom, _ = rom_with(ide_machine, image(Writes.REFUSE))
    assert command(rom, 0x30, 5) == ERR
    assert rom.read(PRIMARY_PORTS + ERROR, 1) == 0x44
    rom.give(PRIMARY_PORTS, 2, bytes(SECTOR_SIZE))
    assert command(rom, 0x20, 5) == DRQ
    assert rom.take(PRIMARY_PORTS, 2, 256) == sector(5)


@pytest.mark.parametrize("seed", range(8))
def test_power_loss(ide_machine: Machine, tmp_path: Path, seed: int) -> None:
    """The machine stops at any access; what was flushed is in the file, and so is nothing else
    but sectors that were written."""
    pick = random.Random(seed)  # noqa: S311
    path = tmp_path / "disk.img"
    before = CONTENT[: 64 * SECTOR_SIZE]
    path.write_bytes(before)
    with path.open("r+b") as file:
        channel, _ = new_channel(DiskImage(file, Writes.THROUGH))
        rom = Rom(ide_machine, channel)
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
def test_a_block_that_makes_no_sense_is_a_reset(
    ide_machine: Machine, field: int, value: int
) -> None:
    disk = image()
    channel, _ = new_channel(disk)
    rom = Rom(ide_machine, channel)
    assert command(rom, 0x30, 5, 3) == DRQ
    ide_machine.write(rom.views[0][0] + field, value)
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
