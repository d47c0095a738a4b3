import struct

import pytest

from vmi.address import RomOffset
from vmi.header import HeaderError, Pcir, Pnp, RomHeader, checksum


def vmi_header() -> bytes:
    # Written out by hand from the layout in Linux asm/vmi.h, not from our codec.
    return struct.pack(
        "<HB4sBIBBBBIHHHHI", 0xAA55, 8, b"\xeb\x10\x00\x00", 0, 0x696D5663, 0, 3, 0, 0,
        0, 0, 0x140, 0x100, 0x120, 0,
    )  # fmt: skip


def test_rom_header_layout() -> None:
    header = RomHeader.parse(vmi_header())
    assert header.is_vmi
    assert (header.api_major, header.api_minor) == (3, 0)
    assert header.size == 4096
    assert (header.license_offset, header.pcir_offset, header.pnp_offset) == (0x140, 0x100, 0x120)


def test_pcir_layout() -> None:
    data = b"PCIR" + struct.pack(
        "<HHHHB3sHHBBH", 0x15AD, 0x801, 0, 24, 0, b"\0\x80\x05", 8, 1, 0, 0x80, 0
    )
    pcir = Pcir.parse(b"\0" * 16 + data, RomOffset(16))
    assert (pcir.vendor, pcir.device) == (0x15AD, 0x0801)
    assert pcir.class_code == (5, 0x80, 0)
    assert pcir.is_last
    assert pcir.image_blocks == 8


def test_pnp_checksum_is_judged() -> None:
    body = bytearray(
        b"$PnP"
        + struct.pack("<BBHBBIHH3sBHHHHH", 1, 2, 0, 0, 0, 0, 7, 9, b"\0\0\0", 0, 0, 0, 0, 0, 0)
    )
    body[9] = -checksum(bytes(body)) & 0xFF
    assert Pnp.parse(bytes(body), RomOffset(0)).checksum_ok
    body[9] ^= 1
    assert not Pnp.parse(bytes(body), RomOffset(0)).checksum_ok


def test_errors_carry_offset_and_expectation() -> None:
    with pytest.raises(
        HeaderError, match=r"ROM header at 0x0 needs 32 bytes, but the image ends at 0x10"
    ):
        RomHeader.parse(b"\0" * 16)
    with pytest.raises(HeaderError, match=r"at 0x4 starts with b'XXXX', expected b'PCIR'"):
        Pcir.parse(b"\0\0\0\0XXXX" + b"\0" * 40, RomOffset(4))
