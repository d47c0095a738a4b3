import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.core.memory import GuestMemory

SIZE = 16 * 4096
ADDRESSES = st.one_of(st.integers(0, SIZE + 8192), st.integers(0, 0xFFFFFFFF))


@pytest.mark.parametrize("size", [0, 1, 4095, 4097])
def test_memory_is_whole_pages(size: int) -> None:
    with pytest.raises(ValueError, match="whole pages"):
        GuestMemory(bytearray(size))


@given(ADDRESSES, st.integers(0, 0xFFFFFFFF))
def test_stores_stay_inside_and_loads_find_them(address: int, value: int) -> None:
    ram = bytearray(SIZE)
    memory = GuestMemory(ram)
    memory.write32(address, value)
    here = address & ~3
    if address < SIZE:
        assert memory.read32(address) == value
        assert ram[here : here + 4] == value.to_bytes(4, "little")
        assert memory.read8(address) == ram[address]
        assert sum(ram[:here]) + sum(ram[here + 4 :]) == 0
    else:
        assert memory.read32(address) == 0xFFFFFFFF
        assert memory.read8(address) == 0xFF
        assert not any(ram)


def protect(memory: GuestMemory, first: int, count: int, *, on: bool = True) -> None:
    memory.set_protected(first, count, on)


def test_protected_frames_read_but_drop_stores() -> None:
    memory = GuestMemory(bytearray(b"\x11" * SIZE))
    protect(memory, 2, 3)
    for address in (0x2000, 0x4FFC):
        memory.write32(address, 0)
        memory.write8(address, 0)
        assert memory.read32(address) == 0x11111111
    memory.write32(0x1FFC, 0)
    memory.write32(0x5000, 0)
    assert (memory.read32(0x1FFC), memory.read32(0x5000)) == (0, 0)
    protect(memory, 3, 1, on=False)
    memory.write32(0x3000, 7)
    assert memory.read32(0x3000) == 7
    assert list(memory.kinds(1, 5)) == [1, 3, 1, 3, 1]


def test_a_hole_is_an_empty_bus() -> None:
    memory = GuestMemory(bytearray(SIZE))
    memory.set_hole(1, 2, hole=True)
    memory.write32(0x1000, 5)
    assert memory.read32(0x1000) == 0xFFFFFFFF
    assert memory.read(0x0FFE, 4) == b"\0\0\xff\xff"


def test_loading_ignores_protection_and_refuses_what_does_not_fit() -> None:
    memory = GuestMemory(bytearray(SIZE))
    protect(memory, 0, 16)
    memory.load(SIZE - 4, b"abcd")
    assert memory.read(SIZE - 4, 4) == b"abcd"
    with pytest.raises(ValueError, match="there is no memory at 0x10000"):
        memory.load(SIZE - 3, b"abcd")
