"""Memory attributes of the host bridge."""

from __future__ import annotations

from vmi.address import Port
from vmm.devices.pam import PamHostBridge, PamSegment
from vmm.devices.pci import CONFIG_ADDRESS, CONFIG_DATA, PciHost


def bridge_and_host() -> tuple[PamHostBridge, PciHost, list[int]]:
    changes: list[int] = []
    bridge = PamHostBridge(lambda: changes.append(1))
    host = PciHost()
    host.plug(0, bridge)
    return bridge, host, changes


def write(host: PciHost, register: int, value: int) -> None:
    host.write(CONFIG_ADDRESS, 4, 0x80000000 | register & 0xFC)
    host.write(Port(CONFIG_DATA + (register & 3)), 1, value)


def test_at_power_on_no_ram_answers() -> None:
    bridge, _, changes = bridge_and_host()
    segments = bridge.segments()
    assert segments[0] == PamSegment(0xC0000, 0x4000, reads_ram=False, writes_ram=False)
    assert segments[-1] == PamSegment(0xF0000, 0x10000, reads_ram=False, writes_ram=False)
    assert sum(segment.size for segment in segments) == 0x40000
    assert not changes


def test_a_register_switches_its_two_segments() -> None:
    bridge, host, changes = bridge_and_host()
    write(host, 0x5A, 0x31)
    write(host, 0x59, 0x10)
    by_address = {segment.address: segment for segment in bridge.segments()}
    assert (by_address[0xC0000].reads_ram, by_address[0xC0000].writes_ram) == (True, False)
    assert (by_address[0xC4000].reads_ram, by_address[0xC4000].writes_ram) == (True, True)
    assert (by_address[0xF0000].reads_ram, by_address[0xF0000].writes_ram) == (True, False)
    assert len(changes) == 2
    write(host, 0x59, 0x10)
    assert len(changes) == 2, "nothing has changed"


def test_its_identity_cannot_be_written() -> None:
    bridge, host, changes = bridge_and_host()
    write(host, 0, 0x55)
    assert bridge.config_read(0) == 0x12378086
    assert not changes
