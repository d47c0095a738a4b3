import mmap
import struct

import pytest

from rombuilder.rom import Flavour, build_rom
from vmi.header import VMI_DEVICE, VMI_VENDOR, checksum
from vmm.core.bus import PortBus
from vmm.core.errors import BadDescription
from vmm.core.memory import GuestMemory
from vmm.devices.pci import CONFIG_ADDRESS, CONFIG_PORTS, PciHost
from vmm.devices.vmirom import VmiRomDevice
from vmm.firmware.post import ShadowedRom, power_on_self_test

ROM = build_rom(Flavour.BATCHING).data
SPARE = 0xE0
RESULTS = 0xF0


class Board:
    def __init__(self, *images: bytes) -> None:
        self.ram = mmap.mmap(-1, 4 << 20)
        self.memory = GuestMemory(self.ram)
        self.ports = PortBus()
        self.pci = PciHost()
        self.ports.register(CONFIG_ADDRESS, CONFIG_PORTS, self.pci)
        for slot, image in enumerate(images):
            self.pci.plug(3 + slot, VmiRomDevice(image))

    def start(self, first: int = 0xC0000) -> list[ShadowedRom]:
        return power_on_self_test(self.ram, self.memory, self.ports, self.pci, first)


def patched(*changes: tuple[int, bytes]) -> bytes:
    data = bytearray(ROM)
    for offset, new in changes:
        data[offset : offset + len(new)] = new
    data[SPARE] = (data[SPARE] - checksum(bytes(data))) & 0xFF
    return bytes(data)


def entry(code: str) -> tuple[tuple[int, bytes], ...]:
    """Let the 16-bit entry be this code, in place of 32-bit code that nobody runs here."""
    return (3, bytes.fromhex("e98a00")), (0x90, bytes.fromhex(code))


def test_no_device_no_rom() -> None:
    board = Board()
    assert board.start() == []
    assert board.memory.read8(0xC0000) == 0


@pytest.mark.parametrize("first", [0xC0000, 0xC0800, 0xD7000])
def test_the_rom_is_shadowed_and_its_area_protected(first: int) -> None:
    board = Board(ROM)
    (rom,) = board.start(first)
    assert (rom.address, rom.vendor, rom.device) == (first, VMI_VENDOR, VMI_DEVICE)
    assert rom.size <= len(ROM)
    for address in (0xC0000, first, 0xDFFFC, 0xE0000, 0xFFFFC):
        before = board.memory.read32(address)
        board.memory.write32(address, 0x5A5A5A5A)
        assert board.memory.read32(address) == before
    board.memory.write32(0x9FFFC, 0x5A5A5A5A)
    assert board.memory.read32(0x9FFFC) == 0x5A5A5A5A


def test_two_roms_lie_one_after_the_other() -> None:
    first, second = Board(ROM, ROM).start()
    assert second.address % 2048 == 0
    assert first.address + first.size <= second.address < first.address + first.size + 2048


def test_too_much_for_the_area() -> None:
    with pytest.raises(BadDescription, match="does not fit"):
        Board(ROM).start(0xDF800)


def test_the_entry_gets_what_firmware_gives() -> None:
    # AX, BX, DX and ES go to CS:00F0 and up.
    board = Board(patched(*entry("2ea3f000 2e891ef200 2e8916f400 2e8c06f600 cb")))
    board.start()
    words = list(struct.unpack_from("<4H", board.ram, 0xC0000 + RESULTS))
    assert words == [3 << 3, 0xFFFF, 0xFFFF, 0xF000]


def test_a_rom_may_shrink_itself() -> None:
    board = Board(patched(*entry("2ec6060200 01 cb")), ROM)
    first, second = board.start()
    assert first.size == 512
    assert second.address == 0xC0800


def test_a_rom_may_remove_itself() -> None:
    board = Board(patched(*entry("2ec6060200 00 cb")), ROM)
    (rom,) = board.start()
    assert rom.address == 0xC0000


@pytest.mark.parametrize("code", ["ebfe", "0f0b", "f4"], ids=["loop", "undefined", "halt"])
def test_an_entry_that_does_not_return(code: str) -> None:
    with pytest.raises(BadDescription, match="option ROM entry c000:0003"):
        Board(patched(*entry(code))).start()


@pytest.mark.parametrize("address", [0, 0xBF800, 0xC0001, 0xC0400, 0xE0000])
def test_addresses_outside_the_area(address: int) -> None:
    with pytest.raises(BadDescription, match=f"ROM address {address:#x}"):
        Board(ROM).start(address)


def test_a_rom_for_another_device() -> None:
    with pytest.raises(BadDescription, match="checksum"):
        Board(ROM[:-1] + bytes([ROM[-1] ^ 1])).start()
