import pytest

from vmm.devices.chipset import HostBridge, IdeFunction
from vmm.devices.pci import CONFIG_ADDRESS, CONFIG_DATA, PciFunction, PciHost


@pytest.fixture
def pci() -> PciHost:
    host = PciHost()
    functions: list[PciFunction] = [HostBridge(), IdeFunction()]
    for device, function in enumerate(functions):
        host.plug(device, function)
    return host


def get(pci: PciHost, device: int, register: int) -> int:
    pci.write(CONFIG_ADDRESS, 4, 1 << 31 | device << 11 | register)
    return pci.read(CONFIG_DATA, 4)


def put(pci: PciHost, device: int, register: int, value: int) -> None:
    pci.write(CONFIG_ADDRESS, 4, 1 << 31 | device << 11 | register)
    pci.write(CONFIG_DATA, 4, value)


def test_identities(pci: PciHost) -> None:
    assert [get(pci, device, 0) for device in (0, 1)] == [0x12378086, 0x70108086]
    assert [get(pci, device, 8) >> 8 for device in (0, 1)] == [0x060000, 0x010100]
    assert [get(pci, device, 0x0C) for device in (0, 1)] == [0, 0], "one function each"


@pytest.mark.parametrize("device", [0, 1])
def test_no_base_addresses_and_no_rom(pci: PciHost, device: int) -> None:
    for register in (*range(0x10, 0x28, 4), 0x30):
        put(pci, device, register, 0xFFFFFFFF)
        assert get(pci, device, register) == 0
    assert pci.memory_read(0xFEB00000, 4) == b"\xff" * 4


def test_ide_decodes_its_legacy_ports(pci: PciHost) -> None:
    assert get(pci, 1, 4) == 0x0001
    assert get(pci, 1, 0x40) == 0x80008000
    put(pci, 1, 0x40, 0xA307A307)
    assert get(pci, 1, 0x40) == 0xA307A307
    put(pci, 1, 4, 0xFFFFFFFF)
    assert get(pci, 1, 4) == 0x0003


def test_host_bridge_cannot_be_changed(pci: PciHost) -> None:
    put(pci, 0, 4, 0xFFFFFFFF)
    assert get(pci, 0, 4) == 0
