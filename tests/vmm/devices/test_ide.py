import io
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vmm.devices.disk import SECTOR_SIZE, DiskImage, Writes
from vmm.devices.ide import PRIMARY_CONTROL, PRIMARY_PORTS, IdeChannel
from vmm.devices.idedrive import IdeDrive
from vmm.devices.ideidentify import Geometry
from vmm.devices.lines import LooseLine

DATA, ERROR, COUNT, LOW, MID, HIGH, DEVICE, STATUS = range(8)
FEATURES, COMMAND = ERROR, STATUS
READY, DRQ, ERR = 0x50, 0x58, 0x51
ABORTED, NOT_FOUND = 0x04, 0x10
LBA = 0x40
SECTORS = 3000


def content(sectors: int = SECTORS) -> bytes:
    return random.Random(1).randbytes(sectors * SECTOR_SIZE)  # noqa: S311


CONTENT = content()


class Host:
    """A driver for one channel."""

    def __init__(self, writes: Writes = Writes.OVERLAY, data: bytes = CONTENT) -> None:
        self.line = LooseLine()
        self.disk = DiskImage(io.BytesIO(data), writes)
        self.channel = IdeChannel(self.line, PRIMARY_PORTS, PRIMARY_CONTROL, IdeDrive(self.disk))

    def get(self, register: int) -> int:
        return self.channel.read(PRIMARY_PORTS + register, 1)

    def put(self, register: int, value: int) -> None:
        self.channel.write(PRIMARY_PORTS + register, 1, value)

    def control(self, value: int) -> None:
        self.channel.write(PRIMARY_CONTROL, 1, value)

    @property
    def alternate(self) -> int:
        return self.channel.read(PRIMARY_CONTROL, 1)

    def command(self, code: int, lba: int = 0, count: int = 0, *, wide: bool = False) -> int:
        """Start a command; answers the status, which takes the interrupt back."""
        if wide:
            self.put(COUNT, count >> 8 & 0xFF)
            for register, shift in ((LOW, 24), (MID, 32), (HIGH, 40)):
                self.put(register, lba >> shift & 0xFF)
        self.put(COUNT, count & 0xFF)
        for register, shift in ((LOW, 0), (MID, 8), (HIGH, 16)):
            self.put(register, lba >> shift & 0xFF)
        self.put(DEVICE, LBA | (0 if wide else lba >> 24 & 0x0F))
        self.put(COMMAND, code)
        return self.get(STATUS)

    def take(self, size: int = 2) -> bytes:
        """One sector from the data port."""
        return b"".join(
            self.channel.read(PRIMARY_PORTS, size).to_bytes(size, "little")
            for _ in range(SECTOR_SIZE // size)
        )

    def give(self, sector: bytes, size: int = 2) -> None:
        for i in range(0, SECTOR_SIZE, size):
            value = int.from_bytes(sector[i : i + size], "little")
            self.channel.write(PRIMARY_PORTS, size, value)

    def identify(self) -> tuple[int, ...]:
        assert self.command(0xEC) == DRQ
        return struct.unpack("<256H", self.take())


@pytest.fixture
def host() -> Host:
    return Host()


def sector(number: int, count: int = 1) -> bytes:
    return CONTENT[number * SECTOR_SIZE : (number + count) * SECTOR_SIZE]


def test_signature_after_power_on_and_reset(host: Host) -> None:
    for _ in range(2):
        assert [host.get(r) for r in (ERROR, COUNT, LOW, MID, HIGH)] == [1, 1, 1, 0, 0]
        assert host.get(STATUS) == READY
        host.command(0x20, 5, 1)
        host.control(0x04)
        assert host.get(STATUS) == 0x80, "busy during a reset"
        host.put(COMMAND, 0xEC)
        host.control(0x00)
        assert not host.line.level


def test_identify(host: Host) -> None:
    words = host.identify()
    assert host.get(STATUS) == READY
    assert words[0] & 0x8000 == 0, "an ATA device"
    assert words[1] == 2
    assert (words[3], words[6]) == (16, 63)
    assert words[57] | words[58] << 16 == 2 * 16 * 63
    assert words[60] | words[61] << 16 == SECTORS
    assert words[100] == SECTORS
    assert words[101:104] == (0, 0, 0)
    assert words[49] & 0x0300 == 0x0200, "LBA without DMA"
    assert words[47] & 0xFF == 16
    assert words[83] & 0xC400 == 0x4400
    model = struct.pack(">20H", *words[27:47])
    assert model.decode().strip() == "vmirom disk"


@pytest.mark.parametrize(("sectors", "cylinders"), [(1, 1), (16 * 63 * 100, 100), (1 << 28, 16383)])
def test_geometry(sectors: int, cylinders: int) -> None:
    assert Geometry.of(sectors) == Geometry(cylinders, 16, 63)


@pytest.mark.parametrize("size", [2, 4])
def test_read_with_an_interrupt_per_sector(host: Host, size: int) -> None:
    host.put(DEVICE, LBA)
    host.put(COUNT, 2)
    host.put(LOW, 7)
    host.put(COMMAND, 0x20)
    assert host.line.level
    assert host.alternate == DRQ
    assert host.line.level, "alternate status leaves the interrupt"
    assert host.get(STATUS) == DRQ
    assert not host.line.level
    assert host.take(size) == sector(7)
    assert host.line.level
    assert host.get(STATUS) == DRQ
    assert host.take(size) == sector(8)
    assert not host.line.level, "no interrupt after the last one"
    assert host.get(STATUS) == READY
    assert (host.get(LOW), host.get(MID)) == (8, 0)


def test_count_0_is_256(host: Host) -> None:
    assert host.command(0x20, 10, 0) == DRQ
    assert b"".join(host.take() for _ in range(256)) == sector(10, 256)
    assert host.get(STATUS) == READY


def test_write_with_an_interrupt_after_each_sector(host: Host) -> None:
    host.put(DEVICE, LBA)
    host.put(COUNT, 2)
    host.put(LOW, 9)
    host.put(COMMAND, 0x30)
    assert not host.line.level, "none before the first"
    assert host.get(STATUS) == DRQ
    host.give(sector(1))
    assert host.line.level
    assert host.get(STATUS) == DRQ
    host.give(sector(2), 4)
    assert host.line.level
    assert host.get(STATUS) == READY
    assert host.disk.read_sector(9) == sector(1)
    assert host.disk.read_sector(10) == sector(2)


def test_multiple(host: Host) -> None:
    assert host.command(0xC4, 0, 4) == ERR, "not before a number is set"
    assert host.get(ERROR) == ABORTED
    assert host.command(0xC6, 0, 4) == READY
    assert host.identify()[59] == 0x0104
    assert host.command(0xC4, 20, 6) == DRQ
    assert b"".join(host.take() for _ in range(4)) == sector(20, 4)
    assert host.line.level
    assert host.get(STATUS) == DRQ
    assert b"".join(host.take() for _ in range(2)) == sector(24, 2)
    assert not host.line.level
    assert host.get(STATUS) == READY


@pytest.mark.parametrize("count", [3, 32, 255])
def test_multiple_refused(host: Host, count: int) -> None:
    assert host.command(0xC6, 0, count) == ERR
    assert host.get(ERROR) == ABORTED


def test_48_bit(host: Host) -> None:
    assert host.command(0x24, 2000, 3, wide=True) == DRQ
    assert b"".join(host.take() for _ in range(3)) == sector(2000, 3)
    assert host.command(0x24, 1 << 40, 1, wide=True) == ERR
    assert host.get(ERROR) == NOT_FOUND
    assert host.command(0x34, 2999, 1, wide=True) == DRQ
    host.give(sector(0))
    assert host.disk.read_sector(2999) == sector(0)


def test_48_bit_count(host: Host) -> None:
    assert host.command(0x24, 0, 0x0201, wide=True) == DRQ
    for number in range(0x0201):
        assert host.take() == sector(number)
    assert host.get(STATUS) == READY


def test_previous_register_contents(host: Host) -> None:
    host.put(LOW, 0x12)
    host.put(LOW, 0x34)
    assert host.get(LOW) == 0x34
    host.control(0x80)
    assert host.get(LOW) == 0x12
    host.put(MID, 0)
    assert host.get(LOW) == 0x34, "any store to the command block clears HOB"


def test_chs(host: Host) -> None:
    host.put(DEVICE, 0x02)
    for register, value in ((COUNT, 1), (LOW, 5), (MID, 1), (HIGH, 0)):
        host.put(register, value)
    host.put(COMMAND, 0x20)
    assert host.get(STATUS) == DRQ
    assert host.take() == sector((1 * 16 + 2) * 63 + 4)


def test_initialize_parameters_changes_the_translation(host: Host) -> None:
    host.put(DEVICE, 0x03)
    host.put(COUNT, 10)
    host.put(COMMAND, 0x91)
    assert host.get(STATUS) == READY
    words = host.identify()
    assert words[54:57] == (75, 4, 10)
    host.put(DEVICE, 0x03)
    for register, value in ((COUNT, 2), (LOW, 10), (MID, 74), (HIGH, 0)):
        host.put(register, value)
    host.put(COMMAND, 0x20)
    assert host.get(STATUS) == DRQ
    assert host.take() == sector(2999)
    assert host.get(STATUS) == ERR, "that was the last sector"
    host.put(COUNT, 0)
    host.put(COMMAND, 0x91)
    assert host.get(STATUS) == ERR


@pytest.mark.parametrize(("head", "number"), [(0, 0), (0, 64)])
def test_bad_chs(host: Host, head: int, number: int) -> None:
    host.put(DEVICE, head)
    host.put(LOW, number)
    host.put(COMMAND, 0x20)
    assert host.get(STATUS) == ERR
    assert host.get(ERROR) == NOT_FOUND


def test_reading_over_the_end(host: Host) -> None:
    assert host.command(0x20, SECTORS - 1, 2) == DRQ
    host.take()
    assert host.line.level
    assert host.get(STATUS) == ERR
    assert host.get(ERROR) == NOT_FOUND
    assert host.get(LOW) | host.get(MID) << 8 == SECTORS, "where it went wrong"
    assert host.command(0x20, SECTORS, 1) == ERR
    assert host.take() == b"\xff" * SECTOR_SIZE


def test_writing_over_the_end(host: Host) -> None:
    assert host.command(0x30, SECTORS - 1, 2) == DRQ
    host.give(sector(0))
    assert host.get(STATUS) == ERR
    host.give(sector(1))
    assert host.disk.read_sector(SECTORS - 1) == sector(0)
    assert host.disk.changed_sectors == 1


def test_write_protected() -> None:
    host = Host(Writes.REFUSE)
    for code in (0x30, 0x34, 0xC5):
        assert host.command(code, 3, 1) == ERR
        assert host.get(ERROR) == 0x44


def test_commands_that_do_not_exist(host: Host) -> None:
    for code in (0x00, 0x08, 0xA0, 0xA1, 0xB0, 0xC8, 0xCA, 0xFF):
        assert host.command(code) == ERR
        assert host.get(ERROR) == ABORTED
    assert host.identify()


@pytest.mark.parametrize(
    ("feature", "count", "status"),
    [(0x03, 0x0C, READY), (0x03, 0x45, ERR), (0x02, 0, READY), (0x82, 0, READY), (0x99, 0, ERR)],
)
def test_set_features(host: Host, feature: int, count: int, status: int) -> None:
    host.put(FEATURES, feature)
    assert host.command(0xEF, 0, count) == status


@pytest.mark.parametrize("code", [0x10, 0x1F, 0xE0, 0xE1, 0xE2, 0xE3, 0xE7, 0xEA, 0x70])
def test_commands_without_data(host: Host, code: int) -> None:
    host.put(DEVICE, LBA)
    host.put(COMMAND, code)
    assert host.line.level
    assert host.get(STATUS) == READY
    assert host.get(ERROR) == 0


def test_power_mode_and_seek(host: Host) -> None:
    host.command(0xE5)
    assert host.get(COUNT) == 0xFF
    assert host.command(0x70, SECTORS) == ERR


def test_verify(host: Host) -> None:
    assert host.command(0x40, 2990, 10) == READY
    assert host.get(LOW) | host.get(MID) << 8 == 2999
    assert host.command(0x40, 2990, 11) == ERR
    assert host.get(ERROR) == NOT_FOUND
    assert host.command(0x42, 2990, 10, wide=True) == READY
    assert host.command(0x40, SECTORS, 1) == ERR


def test_interrupt_disable(host: Host) -> None:
    host.control(0x02)
    host.put(COMMAND, 0xE7)
    assert not host.line.level
    host.control(0x00)
    assert host.line.level, "it had only been held back"
    host.get(STATUS)
    assert not host.line.level


def test_a_new_command_takes_the_interrupt_back(host: Host) -> None:
    host.command(0xE7)
    host.put(COMMAND, 0xE7)
    assert host.line.level
    host.put(DEVICE, LBA)
    host.put(COUNT, 1)
    host.put(COMMAND, 0x30)
    assert not host.line.level


def test_absent_second_drive(host: Host) -> None:
    host.put(DEVICE, 0xB0)
    assert host.get(DEVICE) == 0xB0
    assert host.get(STATUS) == 0
    host.put(COMMAND, 0xEC)
    assert host.get(STATUS) == 0
    assert not host.line.level
    assert host.take() == b"\xff" * SECTOR_SIZE
    host.give(sector(0))
    host.put(DEVICE, 0xA0)
    assert host.get(STATUS) == READY


def test_empty_channel() -> None:
    channel = IdeChannel(LooseLine(), PRIMARY_PORTS, PRIMARY_CONTROL)
    assert channel.read(PRIMARY_PORTS + STATUS, 1) == channel.read(PRIMARY_CONTROL, 1) == 0x7F
    channel.write(PRIMARY_PORTS + COUNT, 1, 0x55)
    assert channel.read(PRIMARY_PORTS + COUNT, 1) == 0xFF
    channel.write(PRIMARY_PORTS + COMMAND, 1, 0x90)


def test_two_drives() -> None:
    line = LooseLine()
    first, second = (IdeDrive(DiskImage(io.BytesIO(content(n)))) for n in (1000, 500))
    channel = IdeChannel(line, PRIMARY_PORTS, PRIMARY_CONTROL, first, second)
    sizes = []
    for device in (0xE0, 0xF0):
        channel.write(PRIMARY_PORTS + DEVICE, 1, device)
        channel.write(PRIMARY_PORTS + COMMAND, 1, 0xEC)
        words = [channel.read(PRIMARY_PORTS, 2) for _ in range(256)]
        sizes.append(words[60])
    assert sizes == [1000, 500]
    assert line.level, "the second drive has not been asked for its status"
    channel.write(PRIMARY_PORTS + DEVICE, 1, 0xE0)
    channel.read(PRIMARY_PORTS + STATUS, 1)
    assert not line.level
    channel.write(PRIMARY_PORTS + DEVICE, 1, 0xF0)
    assert line.level
    channel.write(PRIMARY_PORTS + COMMAND, 1, 0x90)
    assert channel.read(PRIMARY_PORTS + DEVICE, 1) == 0xA0, "the first drive reports"
    assert channel.read(PRIMARY_PORTS + ERROR, 1) == 0x01
    channel.read(PRIMARY_PORTS + STATUS, 1)
    channel.write(PRIMARY_PORTS + DEVICE, 1, 0xF0)
    assert not line.level


def test_wide_access_to_registers_is_split(host: Host) -> None:
    host.channel.write(PRIMARY_PORTS + COUNT, 2, 0x3412)
    assert (host.get(COUNT), host.get(LOW)) == (0x12, 0x34)
    assert host.channel.read(PRIMARY_PORTS + COUNT, 2) == 0x3412


class DiskModel(RuleBasedStateMachine):
    """Random transfers against a plain array of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 64
        self.model = bytearray(content(self.size))
        self.host = Host(Writes.OVERLAY, bytes(self.model))
        self.multiple = 0

    @rule(power=st.integers(0, 4))
    def set_multiple(self, power: int) -> None:
        self.multiple = 1 << power
        assert self.host.command(0xC6, 0, self.multiple) == READY

    @rule(
        lba=st.integers(0, 70),
        count=st.integers(1, 20),
        wide=st.booleans(),
        grouped=st.booleans(),
        size=st.sampled_from([2, 4]),
    )
    def read(self, lba: int, count: int, *, wide: bool, grouped: bool, size: int) -> None:
        code = {(0, 0): 0x20, (0, 1): 0xC4, (1, 0): 0x24, (1, 1): 0x29}[wide, grouped]
        status = self.host.command(code, lba, count, wide=wide)
        if grouped and not self.multiple:
            assert status == ERR
            return
        for number in range(lba, min(lba + count, self.size)):
            assert self.host.get(STATUS) == DRQ
            start = number * SECTOR_SIZE
            assert self.host.take(size) == self.model[start : start + SECTOR_SIZE]
        assert self.host.get(STATUS) == (READY if lba + count <= self.size else ERR)

    @rule(
        lba=st.integers(0, 70),
        count=st.integers(1, 20),
        seed=st.integers(0, 255),
        wide=st.booleans(),
        grouped=st.booleans(),
        size=st.sampled_from([2, 4]),
    )
    def write(
        self, lba: int, count: int, seed: int, *, wide: bool, grouped: bool, size: int
    ) -> None:
        code = {(0, 0): 0x30, (0, 1): 0xC5, (1, 0): 0x34, (1, 1): 0x39}[wide, grouped]
        status = self.host.command(code, lba, count, wide=wide)
        if grouped and not self.multiple:
            assert status == ERR
            return
        for number in range(lba, min(lba + count, self.size)):
            assert self.host.get(STATUS) == DRQ
            data = bytes((seed + number + i) & 0xFF for i in range(SECTOR_SIZE))
            self.host.give(data, size)
            self.model[number * SECTOR_SIZE : (number + 1) * SECTOR_SIZE] = data
        assert self.host.get(STATUS) == (READY if lba + count <= self.size else ERR)

    @rule(code=st.integers(0, 255), lba=st.integers(0, 100))
    def start_and_give_up(self, code: int, lba: int) -> None:
        """Any command, left half done; geometry and block size are then set again."""
        self.host.command(code, lba, 1)
        self.host.channel.read(PRIMARY_PORTS, 2)
        self.host.control(0x04)
        self.host.control(0x00)
        self.multiple = 8
        assert self.host.command(0xC6, 0, 8) == READY

    @invariant()
    def file_is_untouched(self) -> None:
        assert self.host.disk.sectors == self.size


TestDiskModel = DiskModel.TestCase
TestDiskModel.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


@given(
    stores=st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4])),
        max_size=60,
    )
)
def test_nothing_a_guest_stores_breaks_the_channel(stores: list[tuple[int, int, int]]) -> None:
    host = Host(Writes.OVERLAY, bytes(64 * SECTOR_SIZE))
    for register, value, size in stores:
        port = PRIMARY_CONTROL if register == 8 else PRIMARY_PORTS + register
        host.channel.write(port, size, value & ((1 << (8 * size)) - 1))
        assert 0 <= host.channel.read(port, size) < 1 << (8 * size)
    host.control(0x04)
    host.control(0x00)
    assert host.identify()[60] == 64
