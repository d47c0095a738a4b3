import mmap

import pytest

from vmm.core.bus import PortBus
from vmm.core.errors import BadDescription
from vmm.core.memory import GuestMemory
from vmm.core.slots import MemorySlot, SlotList, lay_out
from vmm.engine.realmode import call_far

SEGMENT = 0xC000


@pytest.fixture
def ram() -> mmap.mmap:
    return mmap.mmap(-1, 4 << 20)


def call(ram: mmap.mmap, code: bytes, ports: PortBus | None = None, **registers: int) -> int:
    ram[0xC0003 : 0xC0003 + len(code)] = code
    return call_far(ram, GuestMemory(ram), ports or PortBus(), SEGMENT, 3, registers)


def test_registers_go_in_and_ax_comes_back(ram: mmap.mmap) -> None:
    # add bx, ax; add dx, ax; add di, ax; retf
    code = bytes.fromhex("01d8 01d0 01f8 cb")
    assert call(ram, code, ax=1, bx=0x10, dx=0x100, di=0x1000) == 0x1111


def test_memory_is_the_guests(ram: mmap.mmap) -> None:
    # mov word es:[di], 0x1234; retf
    call(ram, bytes.fromhex("26 c7 05 34 12 cb"), es=0x2000, di=8)
    assert ram[0x20008:0x2000A] == b"\x34\x12"


def test_memory_is_what_the_slots_show(ram: mmap.mmap) -> None:
    slots = [
        MemorySlot(0, 0xA0000),
        MemorySlot(0xC0000, 0x10000, "ram", 0x200000),
        MemorySlot(0xE0000, 0x10000, "ram", 0x200000),
    ]
    memory = GuestMemory(ram, SlotList(slots, lay_out([("ram", 4 << 20)])))
    # mov ax, es:[0]; mov word es:[0], 0x1234; push 0xe000; pop ds; mov bx, ds:[0x100];
    # mov word ds:[0x100], 0x5678; add ax, bx; retf
    code = bytes.fromhex(
        "26a10000 26c706 0000 3412 6800e0 1f 8b1e0001 c70600017856 01d8 cb".replace(" ", "")
    )
    ram[0x200003 : 0x200003 + len(code)] = code
    ram[0x200100:0x200102] = b"\x02\x00"
    # Nothing is at 0xA0000: all ones, and two more.
    assert call_far(ram, memory, PortBus(), SEGMENT, 3, {"es": 0xA000}) == 1
    assert ram[0x200100:0x200102] == b"\x78\x56"
    assert not any(ram[0xA0000:0xC0000])


def test_ports(ram: mmap.mmap) -> None:
    class Echo:
        written = 0

        def read(self, _port: int, _size: int) -> int:
            return 0x42

        def write(self, port: int, size: int, value: int) -> None:
            self.written = port << 16 | size << 12 | value

    ports, echo = PortBus(), Echo()
    ports.register(0x80, 1, echo)
    # in al, 0x80; out 0x80, al; mov ah, 0; retf
    assert call(ram, bytes.fromhex("e480 e680 b400 cb"), ports) == 0x42
    assert echo.written == 0x80 << 16 | 1 << 12 | 0x42


@pytest.mark.parametrize(
    "code",
    [
        bytes.fromhex("eb fe"),
        bytes.fromhex("ea f0ff ffff"),
        bytes.fromhex("0f0b"),
        bytes.fromhex("f4"),
        bytes.fromhex("90") * 64,
    ],
    ids=["loop", "jump away", "undefined", "halt", "falls through"],
)
def test_what_does_not_return_is_said(ram: mmap.mmap, code: bytes) -> None:
    with pytest.raises(BadDescription, match="option ROM entry c000:0003"):
        call(ram, code)
