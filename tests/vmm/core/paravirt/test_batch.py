"""What may be attached as a queue, and what a drain does with any contents."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rombuilder.rom import Flavour, build_rom
from vmi.queue import DRAINED, MAGIC, MAX_CAPACITY, Ability, HeaderField, HomeField
from vmm.core.mmu.checker import ShadowChecker
from vmm.core.paravirt.batch import QueueRefused
from vmm.machine import Machine, MachineDescription

ROM = 0xC0000
HEADER_PAGE = ROM + 0x1000
SIZE = 0x1000


@pytest.fixture(scope="module")
def machine(tiny_guest) -> Machine:
    """Unpaged, so that virtual addresses are physical."""
    about = MachineDescription(
        tiny_guest("start: hlt").data, rom=build_rom(Flavour.BATCHING).data, memory=4 << 20
    )
    return Machine(about)


def plant(
    machine: Machine,
    at: int = HEADER_PAGE,
    *,
    magic: int = MAGIC,
    size: int = SIZE,
    capacity: int = 16,
    count: int = 0,
) -> int:
    machine.memory.load(at, struct.pack("<5I", magic, size, capacity, count, 0))
    return at


def words(machine: Machine, count: int) -> tuple[int, ...]:
    records = HEADER_PAGE + HeaderField.RECORDS
    return struct.unpack_from(f"<{count}I", machine.ram, records)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"magic": 0}, "starts with 0x00000000, expected 0x71494d56"),
        ({"capacity": 0}, "capacity 0, expected 1 to 1024"),
        ({"capacity": 5000}, "capacity 5000"),
        ({"capacity": MAX_CAPACITY + 1, "size": 0x2000}, "capacity 1025"),
        ({"capacity": 0xFFFFFFFF}, "capacity 4294967295"),
        ({"size": 0}, "region of 0 bytes cannot hold 16 records"),
        ({"size": 0x5F}, "region of 95 bytes"),
        ({"size": 0x100000}, "reach beyond the ROM image"),
        ({"size": 0xFFFFFFFF}, "reach beyond the ROM image"),
        ({"at": ROM - 0x21000}, "outside the ROM image"),
        ({"at": 0x200000}, "outside the ROM image"),
        ({"at": ROM + 0x20000}, "outside the ROM image"),
        ({"at": HEADER_PAGE + 2}, "not a multiple of 4"),
    ],
)
def test_what_is_no_queue_is_refused(machine: Machine, header: dict, message: str) -> None:
    before = machine.memory.kinds(0, 1024)
    address = plant(machine, **header)
    with pytest.raises(QueueRefused, match=message):
        machine.vcpu.queue.attach(address)
    assert machine.memory.kinds(0, 1024) == before
    assert not machine.vcpu.queue.attached


@pytest.mark.parametrize(
    ("homes", "stride", "size", "message"),
    [
        (8, 0x1C8, SIZE, "homes 456 bytes apart, expected a multiple of 4 from 460 up"),
        (8, 0x1CE, SIZE, "homes 462 bytes apart"),
        (8, 0xFFFFFFFC, SIZE, "8 homes of 4294967292 bytes in a queue region of 4096 bytes"),
        (9, 0x200, SIZE, "9 homes of 512 bytes"),
        (0, 0x200, SIZE, "0 homes of 512 bytes"),
        (1, 0x200, 0x1C0, "queue region of 448 bytes cannot hold a home of 460"),
    ],
)
def test_homes_that_cannot_be_are_refused(
    machine: Machine, homes: int, stride: int, size: int, message: str
) -> None:
    address = plant(machine, size=size)
    behind = address + HeaderField.RECORDS + 4 * 16
    machine.memory.load(address + HeaderField.ABILITIES, struct.pack("<I", Ability.HOMES))
    machine.memory.load(behind + HomeField.COUNT, struct.pack("<2I", homes, stride))
    with pytest.raises(QueueRefused, match=message):
        machine.vcpu.queue.attach(address)
    machine.memory.load(address + HeaderField.ABILITIES, bytes(4))
    assert not machine.vcpu.queue.attached


@pytest.mark.parametrize("address", [0x800000, 0xFFFFFFFC, 0xE0000000])
def test_addresses_without_memory(machine: Machine, address: int) -> None:
    with pytest.raises(QueueRefused, match="outside the ROM image"):
        machine.vcpu.queue.attach(address)


@pytest.fixture
def attached(tiny_guest) -> Machine:
    about = MachineDescription(
        tiny_guest("start: hlt").data, rom=build_rom(Flavour.BATCHING).data, memory=4 << 20
    )
    machine = Machine(about)
    machine.vcpu.queue.attach(plant(machine))
    return machine


def test_attaching_opens_its_pages_alone(attached: Machine) -> None:
    frames = attached.memory.kinds(0, 1024)
    assert [frames[page] for page in (0xC0, 0xC1, 0xC2)] == [3, 1, 3]
    assert attached.vcpu.queue.location() == (HEADER_PAGE, 16)


def fill(machine: Machine, records: list[int], count: int) -> None:
    machine.memory.load(HEADER_PAGE + HeaderField.RECORDS, struct.pack("<16I", *records))
    machine.memory.load(HEADER_PAGE + HeaderField.COUNT, struct.pack("<2I", count, 1))


def test_a_drain_empties_the_queue(attached: Machine) -> None:
    queue = attached.vcpu.queue
    fill(attached, [0x200001 + 4 * i for i in range(16)], 5)
    assert queue.drain() == 5
    assert words(attached, 16) == (0,) * 5 + tuple(0x200001 + 4 * i for i in range(5, 16))
    assert attached.memory.read32(HEADER_PAGE + HeaderField.COUNT) == 0
    assert attached.memory.read32(HEADER_PAGE + HeaderField.DOWNGRADE) == 0
    assert (queue.updates, queue.notices, queue.drains, queue.largest) == (5, 5, 1, 5)
    assert queue.drain() == 0
    assert queue.drains == 1


def test_a_slot_in_flight_is_waited_for(attached: Machine) -> None:
    """Two reserved, the second written first: its owner was interrupted by the other."""
    queue = attached.vcpu.queue
    fill(attached, [0x200001, 0, 0x200009] + [0] * 13, 3)
    assert queue.drain() == 2
    assert words(attached, 3) == (DRAINED, 0, 0)
    assert attached.memory.read32(HEADER_PAGE + HeaderField.COUNT) == 2
    attached.memory.load(HEADER_PAGE + HeaderField.RECORDS + 4, struct.pack("<I", 0x200005))
    assert queue.drain() == 1
    assert attached.memory.read32(HEADER_PAGE + HeaderField.COUNT) == 0
    assert queue.updates == 3


def test_a_count_beyond_the_capacity_is_cut(attached: Machine) -> None:
    fill(attached, [0x200001] * 16, 0xFFFFFFFF)
    assert attached.vcpu.queue.drain() == 16


RECORDS = st.one_of(
    st.integers(0, 0xFFFFFFFF),
    st.just(0),
    st.just(DRAINED),
    st.builds(lambda page, kind: page << 12 | kind, st.integers(0, 0x410), st.integers(1, 3)),
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_contents_are_survived(hostile: Machine, data: st.DataObject) -> None:
    queue = hostile.vcpu.queue
    records = data.draw(st.lists(RECORDS, min_size=16, max_size=16))
    fill(hostile, records, data.draw(st.integers(0, 20)))
    before = bytes(hostile.ram)
    assert 0 <= queue.drain() <= 16
    after = bytes(hostile.ram)
    assert before[:HEADER_PAGE] == after[:HEADER_PAGE]
    assert before[HEADER_PAGE + SIZE :] == after[HEADER_PAGE + SIZE :]
    ShadowChecker(hostile.vcpu).check()


@pytest.fixture(scope="module")
def hostile(tiny_guest) -> Machine:
    about = MachineDescription(
        tiny_guest("start: hlt").data, rom=build_rom(Flavour.BATCHING).data, memory=4 << 20
    )
    machine = Machine(about)
    machine.memory.load(0x200000, random.Random(1).randbytes(0x8000))  # noqa: S311 - repeats
    machine.vcpu.queue.attach(plant(machine))
    return machine


def test_a_region_must_be_in_one_piece(run_guest) -> None:
    """Mapped by pages that do not follow each other: refused, and said so."""
    rom = build_rom(Flavour.BATCHING)
    queue = ROM + rom.data.index(b"VMIq")
    run = run_guest(
        f"""
start:	movl $0xc0000 | OPEN, TABLE + (({queue} >> 12) + 1) * 4
	PAGING
	RING DOORBELL_ATTACH, {queue}
	test %eax, %eax
	jnz 1f
	FINISH 0
1:	FINISH 1
""",
        rom=build_rom(Flavour.BATCHING, queue=1024).data,
        passes=False,
    )
    assert run.outcome.ok
    assert len(run.complaints) == 1
    assert "refused" in run.complaints[0]
