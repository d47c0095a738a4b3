"""Lists of memory slots: what cannot be is refused, and lookups agree with a linear search."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.core.dirtylog import DirtyLog
from vmm.core.errors import BadSlots
from vmm.core.memory import GuestMemory
from vmm.core.slots import Backing, MemorySlot, SlotList, changed_frames, lay_out

PAGE = 4096
TOP = 1 << 32
BACKINGS = lay_out([("ram", 16 * PAGE), ("rom", 4 * PAGE)])


def slots(*given: MemorySlot) -> SlotList:
    return SlotList(given, BACKINGS)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([MemorySlot(0, 0)], r"slot 0, 0x0--0x1 \(ram\+0x0\): size 0: expected a page or more"),
        ([MemorySlot(0x800, PAGE)], "slot 0, .*address 0x800: expected a multiple of 0x1000"),
        ([MemorySlot(0, PAGE), MemorySlot(PAGE, 100)], "slot 1, .*size 0x64: expected a multiple"),
        ([MemorySlot(0, PAGE, "ram", 1)], r"slot 0, 0x0-0xfff \(ram\+0x1\): offset 0x1: expected"),
        ([MemorySlot(-PAGE, PAGE)], "slot 0, .*address -0x1000: expected"),
        ([MemorySlot(0, -PAGE)], "size -0x1000: expected"),
        ([MemorySlot(0, PAGE, "ram", -PAGE)], "offset -0x1000: expected"),
        ([MemorySlot(TOP - PAGE, 2 * PAGE)], "ends at 0x100001000: expected at most 0x100000000"),
        ([MemorySlot(TOP, PAGE)], "ends at 0x100001000"),
        ([MemorySlot(1 << 80, PAGE)], "ends at 0x100000000000000001000"),
        ([MemorySlot(0, PAGE, "disk")], "backing 'disk': expected one of ram, rom"),
        ([MemorySlot(0, 17 * PAGE)], "reaches byte 0x11000 of a backing of 0x10000"),
        ([MemorySlot(0, PAGE, "rom", 4 * PAGE)], "reaches byte 0x5000 of a backing of 0x4000"),
        (
            [MemorySlot(3 * PAGE, PAGE), MemorySlot(0, 4 * PAGE, "rom")],
            r"slot 0, 0x3000-0x3fff \(ram\+0x0\), overlaps slot 1, 0x0-0x3fff \(rom\+0x0\)",
        ),
        (
            [MemorySlot(0, PAGE), MemorySlot(PAGE, PAGE), MemorySlot(0, PAGE)],
            r"slot 2, 0x0-0xfff .*overlaps slot 0, 0x0-0xfff",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: list[MemorySlot], says: str) -> None:
    with pytest.raises(BadSlots, match=says):
        slots(*given)


def test_what_touches_does_not_overlap_up_to_the_last_byte() -> None:
    found = slots(
        MemorySlot(TOP - PAGE, PAGE, "rom", 3 * PAGE),
        MemorySlot(0, PAGE),
        MemorySlot(PAGE, PAGE),
        MemorySlot(TOP - 2 * PAGE, PAGE),
    )
    assert [slot.address for slot in found] == [0, PAGE, TOP - 2 * PAGE, TOP - PAGE]
    assert found.find(TOP - 1) == MemorySlot(TOP - PAGE, PAGE, "rom", 3 * PAGE)
    assert found.find(2 * PAGE) is None
    assert found.host_of(TOP - 1) == 20 * PAGE - 1


def test_no_slots_at_all() -> None:
    memory = GuestMemory(bytearray(20 * PAGE), slots())
    assert memory.read32(0) == 0xFFFFFFFF
    memory.write32(0, 1)
    assert not memory.is_ram(0)
    assert memory.runs() == []


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ([("ram", PAGE), ("ram", PAGE)], "backing 'ram' is named twice"),
        ([("ram", 0)], "backing 'ram' of 0 bytes"),
        ([("ram", 100)], "backing 'ram' of 100 bytes"),
    ],
)
def test_backings_that_cannot_be(sizes: list[tuple[str, int]], says: str) -> None:
    with pytest.raises(BadSlots, match=says):
        lay_out(sizes)


def test_a_backing_outside_the_buffer_is_refused() -> None:
    listed = SlotList([MemorySlot(0, PAGE, "far")], [Backing("far", 1 << 20, PAGE)])
    with pytest.raises(ValueError, match="its backing is not in a buffer of 0x5000"):
        GuestMemory(bytearray(5 * PAGE), listed)


NUMBERS = st.integers(0, 40)
RANDOM_SLOTS = st.lists(
    st.builds(
        lambda page, count, backing, offset, locked: MemorySlot(
            page * PAGE, count * PAGE, backing, offset * PAGE, read_only=locked
        ),
        st.one_of(NUMBERS, st.integers((1 << 20) - 8, (1 << 20) - 1)),
        st.integers(1, 4),
        st.sampled_from(["ram", "rom"]),
        st.integers(0, 15),
        st.booleans(),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(RANDOM_SLOTS, RANDOM_SLOTS)
def test_lookups_agree_with_a_linear_search(
    first: list[MemorySlot], second: list[MemorySlot]
) -> None:
    buffer = bytearray(20 * PAGE)
    memory = GuestMemory(buffer, slots())
    devices = [4, 20, (1 << 20) - 2]
    memory.know_devices(devices)
    for some in (first, second):
        try:
            listed = slots(*some)
        except BadSlots:
            continue
        memory.replace(listed)
        for _ in range(2):
            for frame in (*range(48), *range((1 << 20) - 9, 1 << 20)):
                slot = next((s for s in some if s.address <= frame << 12 < s.end), None)
                assert memory.is_ram(frame) == (slot is not None)
                assert memory.is_device(frame) == (slot is None and frame in devices)
                assert memory.is_protected(frame) == (slot is not None and slot.read_only)
                expected = 0xFFFFFFFF
                if slot is not None:
                    base = 0 if slot.backing == "ram" else 16 * PAGE
                    expected = (base + slot.offset + (frame << 12) - slot.address) >> 12
                assert memory.host(frame) == expected


def test_every_frame_is_looked_up_once() -> None:
    memory = GuestMemory(bytearray(20 * PAGE), slots(MemorySlot(0, 16 * PAGE)))
    memory.know_devices([100])
    before = memory.lookups
    for _ in range(3):
        assert memory.is_ram(3)
        assert not memory.is_ram(99)
        assert memory.is_device(100)
    assert memory.lookups == before + 3
    memory.replace(memory.slots)
    memory.is_ram(3)
    assert memory.lookups == before + 4


def test_stores_through_one_alias_are_loads_through_the_other() -> None:
    buffer = bytearray(20 * PAGE)
    memory = GuestMemory(
        buffer,
        slots(
            MemorySlot(0x10000, 2 * PAGE, "rom", PAGE),
            MemorySlot(TOP - PAGE, PAGE, "rom", 2 * PAGE),
            MemorySlot(0x80000, PAGE, "rom", 2 * PAGE, read_only=True),
        ),
    )
    memory.write32(0x11008, 0x12345678)
    assert memory.read32(TOP - PAGE + 8) == memory.read32(0x80008) == 0x12345678
    memory.write8(TOP - 1, 0x7F)
    assert memory.read8(0x11FFF) == 0x7F
    memory.write32(0x80008, 0)
    assert memory.read32(0x11008) == 0x12345678
    memory.load(0x80008, b"firmware")
    assert memory.read(0x11008, 8) == b"firmware"
    assert buffer[18 * PAGE + 8 : 18 * PAGE + 16] == b"firmware"


def test_what_firmware_lays_over_slots_stays_when_they_change() -> None:
    memory = GuestMemory(bytearray(20 * PAGE), slots(MemorySlot(0, 8 * PAGE)))
    memory.set_protected(2, 1, protected=True)
    memory.set_hole(3, 1, hole=True)
    assert list(memory.kinds(1, 4)) == [1, 3, 0, 1]
    memory.replace(slots(MemorySlot(2 * PAGE, 4 * PAGE, "rom")))
    assert list(memory.kinds(1, 4)) == [0, 3, 0, 1]
    assert memory.runs() == [(2, 1, 16, True), (4, 2, 18, False)]
    memory.set_hole(3, 1, hole=False)
    memory.set_protected(2, 1, protected=False)
    assert memory.runs() == [(2, 4, 16, False)]


def test_a_page_that_is_partly_gone_is_not_loaded_at_all() -> None:
    buffer = bytearray(20 * PAGE)
    memory = GuestMemory(buffer, slots(MemorySlot(0, PAGE), MemorySlot(2 * PAGE, PAGE)))
    with pytest.raises(ValueError, match="there is no memory at 0x1000"):
        memory.load(PAGE - 2, b"abcd")
    with pytest.raises(ValueError, match="there is no memory at 0x100000000"):
        memory.load(TOP, b"a")
    assert not any(buffer)


# ---- dirty pages


LOGGED = MemorySlot(0, 4 * PAGE, logging=True)
ALIAS = MemorySlot(0x10000, 2 * PAGE, "ram", 2 * PAGE, logging=True)
QUIET = MemorySlot(0x20000, PAGE, "ram", 3 * PAGE)


def taken(memory: GuestMemory, slot: MemorySlot) -> list[int]:
    pages: list[int] = memory.log.take(slot)[0]
    return pages


def test_every_slot_that_logs_a_page_hears_of_it_through_any_alias() -> None:
    memory = GuestMemory(bytearray(20 * PAGE), slots(LOGGED, ALIAS, QUIET))
    memory.write32(PAGE, 1)
    memory.write8(0x20FFF, 1)
    memory.load(0x10000 - 0, b"x")
    assert taken(memory, LOGGED) == [1, 2, 3]
    assert taken(memory, LOGGED) == []
    assert taken(memory, ALIAS) == [0, 1]
    memory.write32(2 * PAGE, 1)
    assert taken(memory, ALIAS) == [0]
    assert taken(memory, LOGGED) == [2]


def test_what_is_swallowed_dirties_nothing() -> None:
    locked = MemorySlot(0, PAGE, logging=True, read_only=True)
    memory = GuestMemory(bytearray(20 * PAGE), slots(locked))
    memory.write32(0, 1)
    memory.write32(PAGE, 1)
    assert taken(memory, locked) == []


def test_a_slot_that_stays_keeps_its_log() -> None:
    memory = GuestMemory(bytearray(20 * PAGE), slots(LOGGED, ALIAS))
    memory.write32(0, 1)
    memory.replace(slots(LOGGED, QUIET))
    with pytest.raises(BadSlots, match=r"slot 0x10000-0x11fff .*not in the list"):
        memory.log.take(ALIAS)
    with pytest.raises(BadSlots, match="or without a log"):
        memory.log.take(QUIET)
    assert taken(memory, LOGGED) == [0]
    memory.write32(0, 1)
    memory.replace(slots(MemorySlot(0, 4 * PAGE)))
    assert not memory.log.on
    memory.replace(slots(LOGGED))
    assert taken(memory, LOGGED) == []


def test_a_log_is_told_and_restored() -> None:
    memory = GuestMemory(bytearray(20 * PAGE), slots(LOGGED, ALIAS))
    memory.write32(PAGE, 1)
    state = memory.log.state()
    assert state == {LOGGED: [1], ALIAS: []}
    other = DirtyLog(20)
    other.follow(memory.slots)
    for slot, pages in state.items():
        other.restore(slot, pages)
    assert other.state() == state
    assert [other.is_clean(frame) for frame in range(4)] == [True, False, True, True]


# ---- what a change is about


@settings(deadline=None)
@given(RANDOM_SLOTS, RANDOM_SLOTS)
def test_changed_frames_are_those_that_some_address_names_anew(
    first: list[MemorySlot], second: list[MemorySlot]
) -> None:
    try:
        old, new = slots(*first), slots(*second)
    except BadSlots:
        return
    expected = set()
    for frame in (*range(48), *range((1 << 20) - 9, 1 << 20)):
        before, after = old.host_of(frame << 12), new.host_of(frame << 12)
        if before != after:
            expected |= {place >> 12 for place in (before, after) if place is not None}
    assert {frame for frames in changed_frames(old, new) for frame in frames} == expected
