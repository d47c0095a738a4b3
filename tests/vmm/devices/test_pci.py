import pytest

from vmi.header import VMI_DEVICE, VMI_VENDOR
from vmm.devices.pci import CONFIG_ADDRESS, CONFIG_DATA, PciHost
from vmm.devices.vmirom import VmiRomDevice

SLOT = 4
ROM_BAR, COMMAND = 0x30, 0x04


@pytest.fixture
def host() -> PciHost:
    host = PciHost()
    host.plug(SLOT, VmiRomDevice(bytes(range(256)) * 20))
    return host


def select(host: PciHost, register: int, slot: int = SLOT, *, function: int = 0) -> None:
    host.write(CONFIG_ADDRESS, 4, 1 << 31 | slot << 11 | function << 8 | register)


def read(host: PciHost, register: int, size: int = 4, slot: int = SLOT) -> int:
    select(host, register & ~3, slot)
    return host.read(CONFIG_DATA + (register & 3), size)


def write(host: PciHost, register: int, value: int, size: int = 4) -> None:
    select(host, register & ~3)
    host.write(CONFIG_DATA + (register & 3), size, value)


def test_identity(host: PciHost) -> None:
    assert read(host, 0) == VMI_DEVICE << 16 | VMI_VENDOR
    assert read(host, 2, 2) == VMI_DEVICE
    assert read(host, 0x0B, 1) == 0x05
    assert read(host, 0x0A, 1) == 0x80


def test_empty_slots_read_as_ones(host: PciHost) -> None:
    for slot in range(32):
        if slot != SLOT:
            assert read(host, 0, slot=slot) == 0xFFFFFFFF
    select(host, 0, function=1)
    assert host.read(CONFIG_DATA, 4) == 0xFFFFFFFF
    host.write(CONFIG_ADDRESS, 4, SLOT << 11)
    assert host.read(CONFIG_DATA, 4) == 0xFFFFFFFF


def test_the_address_register_is_a_dword(host: PciHost) -> None:
    select(host, 0x30)
    assert host.read(CONFIG_ADDRESS, 4) == 1 << 31 | SLOT << 11 | 0x30
    host.write(CONFIG_ADDRESS, 1, 0)
    assert host.read(CONFIG_ADDRESS, 4) == 1 << 31 | SLOT << 11 | 0x30
    assert host.read(CONFIG_ADDRESS, 2) == 0xFFFF


def test_sizing_the_rom_bar(host: PciHost) -> None:
    write(host, ROM_BAR, 0xFFFFFFFF)
    # 5120 bytes are decoded as 8 KiB.
    assert read(host, ROM_BAR) == 0xFFFFE001
    write(host, ROM_BAR, 0xFFFFF800)
    assert read(host, ROM_BAR) == 0xFFFFE000


def test_the_rom_is_decoded_only_when_both_enables_are_set(host: PciHost) -> None:
    write(host, ROM_BAR, 0xFEB00001)
    assert host.memory_read(0xFEB00000, 4) == b"\xff" * 4
    write(host, COMMAND, 0xFFFF, 2)
    assert read(host, COMMAND, 2) == 2
    assert host.memory_read(0xFEB00010, 4) == bytes(range(16, 20))
    assert host.memory_read(0xFEB01400, 2) == b"\xff\xff"
    assert host.memory_read(0xFEB01FFF, 2) == b"\xff\xff"
    assert host.memory_read(0xFEB02000, 1) == b"\xff"
    assert host.memory_read(0xFEAFFFFF, 1) == b"\xff"
    write(host, ROM_BAR, 0xFEB00000)
    assert host.memory_read(0xFEB00000, 4) == b"\xff" * 4


def test_read_only_registers_keep_their_values(host: PciHost) -> None:
    before = [read(host, register) for register in range(0, 256, 4)]
    for register in range(0, 256, 4):
        if register not in {ROM_BAR, COMMAND}:
            write(host, register, 0x5A5A5A5A)
    assert [read(host, register) for register in range(0, 256, 4)] == before


@pytest.mark.parametrize("slot", [SLOT, -1, 32])
def test_slots_are_taken_once(host: PciHost, slot: int) -> None:
    with pytest.raises(ValueError, match=f"PCI device number {slot} "):
        host.plug(slot, VmiRomDevice(b"x"))


@pytest.mark.parametrize(("size", "bar"), [(1, 0xFFFFF800), (2048, 0xFFFFF800), (2049, 0xFFFFF000)])
def test_the_smallest_bar(size: int, bar: int) -> None:
    host = PciHost()
    host.plug(SLOT, VmiRomDevice(bytes(size)))
    write(host, ROM_BAR, 0xFFFFF800)
    assert read(host, ROM_BAR) == bar
