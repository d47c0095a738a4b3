"""Power-on self-test: find option ROMs on the PCI bus, shadow them, run their entries.

The steps and their order are those of PCI firmware (PCI Firmware Specification
3.0, section 5.2), as SeaBIOS takes them.
"""

import mmap
import struct
from dataclasses import dataclass

from vmi.address import PAGE_SHIFT, GuestPhysical
from vmi.header import BLOCK_SIZE, ENTRY_16
from vmm.core.bus import PortBus
from vmm.core.errors import BadDescription
from vmm.core.memory import GuestMemory
from vmm.devices.pci import CONFIG_ADDRESS, CONFIG_DATA, PciHost
from vmm.engine.realmode import FarCall, call_far
from vmm.firmware.romcheck import check_option_rom
from vmm.firmware.services import install_services

__all__ = ["ROM_AREA_END", "ROM_AREA_START", "ShadowedRom", "power_on_self_test"]

ROM_AREA_START = GuestPhysical(0xC0000)
ROM_AREA_END = GuestPhysical(0xE0000)
"""Option ROMs live below; the BIOS itself above, up to 1 MiB."""
_BIOS_END = 0x100000
_ALIGNMENT = 2048

_ROM_BAR = 0x30
_ROM_ENABLE = 1
_COMMAND = 0x04
_MEMORY_SPACE = 2
_BAR_ADDRESS = 0xFEB00000

_NO_PNP = 0xFFFF


@dataclass(frozen=True, slots=True)
class ShadowedRom:
    """An option ROM in the guest's memory. `size` is what it kept after its entry ran."""

    address: GuestPhysical
    size: int
    vendor: int
    device: int


class _Config:
    """Configuration space, through the ports as any firmware reaches it."""

    def __init__(self, ports: PortBus) -> None:
        self._ports = ports

    def read(self, device: int, register: int) -> int:
        self._ports.write(CONFIG_ADDRESS, 4, 1 << 31 | device << 11 | register)
        return self._ports.read(CONFIG_DATA, 4)

    def write(self, device: int, register: int, value: int) -> None:
        self._ports.write(CONFIG_ADDRESS, 4, 1 << 31 | device << 11 | register)
        self._ports.write(CONFIG_DATA, 4, value)


def power_on_self_test(
    ram: mmap.mmap,
    memory: GuestMemory,
    ports: PortBus,
    pci: PciHost,
    first_rom: int = ROM_AREA_START,
    far_call: FarCall = call_far,
) -> list[ShadowedRom]:
    """Shadow every option ROM from `first_rom` up, then write-protect the area.

    `first_rom` is a guest-physical address, a multiple of 2 KiB; elsewhere than at
    0xC0000 it stands for ROMs that came first. `far_call` runs their entries. Raises
    `BadDescription` for a ROM that firmware would not take, or that does not fit.
    """
    if first_rom % _ALIGNMENT or not ROM_AREA_START <= first_rom < ROM_AREA_END:
        raise BadDescription(
            f"ROM address {first_rom:#x}: expected a multiple of {_ALIGNMENT:#x} in "
            f"{ROM_AREA_START:#x}-{ROM_AREA_END:#x}"
        )
    install_services(memory)
    config = _Config(ports)
    shadowed: list[ShadowedRom] = []
    slot = first_rom
    for device in range(32):
        identity = config.read(device, 0)
        if identity & 0xFFFF == 0xFFFF:
            continue
        image = _read_rom(config, pci, device)
        if image is None:
            continue
        vendor, product = identity & 0xFFFF, identity >> 16
        header = check_option_rom(image, vendor, product)
        if slot + header.size > ROM_AREA_END:
            raise BadDescription(
                f"ROM of {header.size} bytes does not fit between {slot:#x} and {ROM_AREA_END:#x}"
            )
        memory.load(slot, image[: header.size])
        far_call(
            ram,
            memory,
            ports,
            slot >> 4,
            ENTRY_16,
            {"ax": device << 3, "bx": _NO_PNP, "dx": _NO_PNP, "es": 0xF000, "di": 0},
        )
        kept = memory.read8(slot + 2) * BLOCK_SIZE
        if kept:
            shadowed.append(ShadowedRom(GuestPhysical(slot), kept, vendor, product))
            slot += -(-kept // _ALIGNMENT) * _ALIGNMENT
    memory.set_protected(
        ROM_AREA_START >> PAGE_SHIFT, (_BIOS_END - ROM_AREA_START) >> PAGE_SHIFT, protected=True
    )
    return shadowed


def _read_rom(config: _Config, pci: PciHost, device: int) -> bytes | None:
    """Size the ROM BAR, map it, read it, unmap it; none if there is no BAR."""
    config.write(device, _ROM_BAR, 0xFFFFF800)
    answer = config.read(device, _ROM_BAR) & 0xFFFFF800
    if not answer:
        return None
    size = (~answer & 0xFFFFFFFF) + 1
    config.write(device, _ROM_BAR, _BAR_ADDRESS | _ROM_ENABLE)
    config.write(device, _COMMAND, _MEMORY_SPACE)
    image = pci.memory_read(_BAR_ADDRESS, size)
    config.write(device, _ROM_BAR, _BAR_ADDRESS)
    config.write(device, _COMMAND, 0)
    blocks = struct.unpack_from("<B", image, 2)[0]
    return image[: max(BLOCK_SIZE, blocks * BLOCK_SIZE)]
