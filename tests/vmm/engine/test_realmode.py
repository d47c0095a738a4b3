import mmap

import pytest

from vmm.core.bus import PortBus
from vmm.core.errors import BadDescription
from vmm.engine.realmode import call_far

SEGMENT = 0xC000


@pytest.fixture
def ram() -> mmap.mmap:
    return mmap.mmap(-1, 4 << 20)


def call(ram: mmap.mmap, code: bytes, ports: PortBus | None = None, **registers: int) -> int:
    ram[0xC0003 : 0xC0003 + len(code)] = code
    return call_far(ram, ports or PortBus(), SEGMENT, 3, registers)


def test_registers_go_in_and_ax_comes_back(ram: mmap.mmap) -> None:
    # add bx, ax; add dx, ax; add di, ax; retf
    code = bytes.fromhex("01d8 01d0 01f8 cb")
    assert call(ram, code, ax=1, bx=0x10, dx=0x100, di=0x1000) == 0x1111


def test_memory_is_the_guests(ram: mmap.mmap) -> None:
    # mov word es:[di], 0x1234; retf
    call(ram, bytes.fromhex("26 c7 05 34 12 cb"), es=0x2000, di=8)
    assert ram[0x20008:0x2000A] == b"\x34\x12"


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
