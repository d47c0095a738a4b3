import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rombuilder.rom import Flavour, build_rom
from vmi.header import VMI_DEVICE, VMI_VENDOR, RomHeader, checksum
from vmm.core.errors import BadDescription
from vmm.firmware.romcheck import check_option_rom, check_vmi_rom

ROM = build_rom(Flavour.IDENTITY).data
PCIR = RomHeader.parse(ROM).pcir_offset


def changed(offset: int, value: int, *, sums: bool = True) -> bytes:
    data = bytearray(ROM)
    data[offset] = value
    if sums:
        data[-1] = (data[-1] - checksum(bytes(data))) & 0xFF
    return bytes(data)


def check(image: bytes) -> RomHeader:
    return check_option_rom(image, VMI_VENDOR, VMI_DEVICE)


def test_our_own_is_taken() -> None:
    assert check(ROM).size == len(ROM)
    check_vmi_rom(ROM)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "ROM header"),
        (ROM[:31], "ROM header"),
        (ROM[:-512], "truncated: its header says"),
        (changed(0, 0), "signature 0xaa00, expected 0xaa55"),
        (changed(2, 0), "length is 0 blocks"),
        (changed(2, 0xFF), "truncated"),
        (changed(-1, (ROM[-1] + 0x55) & 0xFF, sums=False), "bytes sum to 0x55, expected 0"),
        (changed(0x18, 0xF0), "PCI data structure"),
        (changed(0x19, 0xFF), "PCI data structure"),
        (changed(PCIR, 0), "PCI data structure"),
        (changed(PCIR + 4, 0), "for PCI device 1500:0801, but sits on 15ad:0801"),
        (changed(PCIR + 6, 2), "for PCI device 15ad:0802"),
        (changed(PCIR + 0x14, 3), "code type 3, expected 0"),
    ],
)
def test_what_firmware_refuses(image: bytes, message: str) -> None:
    with pytest.raises(BadDescription, match=message):
        check(image)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(8, 0, "not a VMI ROM"), (0x0D, 4, "version 4.0, expected 3.x")],
)
def test_what_a_guest_refuses(offset: int, value: int, message: str) -> None:
    with pytest.raises(BadDescription, match=message):
        check_vmi_rom(changed(offset, value))


@settings(max_examples=200)
@given(st.binary(max_size=600))
def test_noise_is_refused_and_nothing_worse(noise: bytes) -> None:
    for image in (noise, ROM[:0x20] + noise, b"\x55\xaa\x01" + noise):
        for judge in (check, check_vmi_rom):
            with contextlib.suppress(BadDescription):
                judge(image)
