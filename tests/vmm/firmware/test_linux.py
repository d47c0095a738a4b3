"""The boot protocol, on kernels made by hand; only their headers matter."""

import gzip
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.core.errors import BadDescription
from vmm.firmware.boot import BootPlan, Segment
from vmm.firmware.bzimage import is_bzimage, parse_bzimage
from vmm.firmware.linux import BOOT_PARAMS, COMMAND_LINE, plan_linux

MIB = 1 << 20
MEMORY = 64 * MIB
ESP, ESI = 4, 6
HEADER_ENDS = {0x200: 0x22C, 0x203: 0x230, 0x205: 0x235, 0x206: 0x23C, 0x209: 0x258, 0x20A: 0x264}
KERNEL = bytes(range(256)) * 16
KERNEL_SIZE = len(KERNEL)


def make_bzimage(protocol: int = 0x209, kernel: bytes = KERNEL, **fields: Any) -> bytes:
    """A setup part of two sectors and `kernel`; `fields` are header fields by name."""
    image = bytearray(3 * 512)
    header_end = next(end for version, end in reversed(HEADER_ENDS.items()) if version <= protocol)
    values = {
        "setup_sectors": (0x1F1, "<B", 2),
        "paragraphs": (0x1F4, "<I", len(kernel) // 16),
        "boot_flag": (0x1FE, "<H", 0xAA55),
        "jump": (0x200, "<H", 0xEB | (header_end - 0x202) << 8),
        "magic": (0x202, "<4s", b"HdrS"),
        "protocol": (0x206, "<H", protocol),
        "version_at": (0x20E, "<H", 0x100),
        "load_flags": (0x211, "<B", 0x01),
        "code_start": (0x214, "<I", 0x100000),
        "initrd_max": (0x22C, "<I", 0x37FFFFFF),
        "alignment": (0x230, "<I", 0x400000),
        "relocatable": (0x234, "<B", 0),
        "min_alignment": (0x235, "<B", 0),
        "xload_flags": (0x236, "<H", 0),
        "command_line_max": (0x238, "<I", 2047),
        "payload": (0x248, "<I", 0),
        "payload_size": (0x24C, "<I", 0),
        "preferred": (0x258, "<Q", 16 * MIB),
        "init_size": (0x260, "<I", 4 * MIB),
    }
    for name, (offset, code, default) in values.items():
        if offset < header_end:
            struct.pack_into(code, image, offset, fields.pop(name, default))
    assert not fields
    image[0x300:0x30C] = b"2.6.32-test\0"
    return bytes(image) + kernel


def make_vmlinux() -> bytes:
    """4 bytes of text at 1 MiB; 4 bytes of data at 2 MiB with 1 MiB to be cleared."""
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    header = struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0x100000, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    text = struct.pack("<8I", 1, 116, 0xC0100000, 0x100000, 4, 4, 5, 4096)
    data = struct.pack("<8I", 1, 120, 0xC0200000, 0x200000, 4, MIB, 6, 4096)
    return ident + header + text + data + b"textdata"


def segment_at(plan: BootPlan, address: int) -> Segment:
    return next(segment for segment in plan.segments if segment.address == address)


def params(plan: BootPlan) -> bytes:
    return segment_at(plan, BOOT_PARAMS).data


def dword(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", data, offset)[0])


def test_parse() -> None:
    image = parse_bzimage(make_bzimage(0x20A, relocatable=1))
    assert image.protocol_name == "2.10"
    assert image.kernel == KERNEL
    assert image.version == "2.6.32-test"
    assert image.relocatable
    assert image.alignment == 0x400000
    assert image.preferred == 16 * MIB
    assert image.init_size == 4 * MIB
    assert image.command_line_max == 2047


def test_defaults_of_old_protocols() -> None:
    image = parse_bzimage(make_bzimage(0x202))
    assert image.protocol_name == "2.02"
    assert image.initrd_max == 0x37FFFFFF
    assert image.command_line_max == 255
    assert not image.relocatable
    assert image.preferred is None
    assert image.init_size == KERNEL_SIZE


def test_setup_sectors_0_mean_4() -> None:
    image = make_bzimage(setup_sectors=0)
    assert parse_bzimage(image[: 3 * 512] + bytes(1024) + KERNEL).kernel == KERNEL


def test_entry_state() -> None:
    plan = plan_linux(make_bzimage(), MEMORY, "console=ttyS0")
    assert plan.protocol == "Linux 2.09"
    assert plan.entry == 0x100000
    assert (plan.code, plan.data) == (0x10, 0x18)
    assert plan.registers[ESI] == BOOT_PARAMS
    assert segment_at(plan, 0x100000).data == KERNEL
    assert segment_at(plan, COMMAND_LINE).data == b"console=ttyS0\0"


def test_boot_params() -> None:
    image = make_bzimage()
    page = params(plan_linux(image, MEMORY))
    assert len(page) == 4096
    header = bytearray(image[0x1F1:0x258])
    struct.pack_into("<H", header, 0x1FA - 0x1F1, 0xFFFF)
    header[0x210 - 0x1F1] = 0xFF
    struct.pack_into("<I", header, 0x228 - 0x1F1, COMMAND_LINE)
    assert page[0x1F1:0x258] == header
    assert page[0x258:0x2D0] == bytes(0x78), "nothing but the header is copied"
    assert struct.unpack_from("<H", page, 2)[0] == 63 * 1024
    assert dword(page, 0x1E0) == 63 * 1024
    assert page[0x1E8] == 4
    assert struct.unpack_from("<QQI", page, 0x2D0 + 60) == (MIB, MEMORY - MIB, 1)
    assert (page[7], page[0x0E], page[0x0F]) == (80, 25, 0), "80 by 25, but no VGA"
    assert dword(page, 0x218) == dword(page, 0x21C) == 0
    assert page[0x140:0x1C0] == bytes(0x80), "no EDID"


def test_extended_memory_word_saturates() -> None:
    page = params(plan_linux(make_bzimage(), 512 * MIB))
    assert struct.unpack_from("<H", page, 2)[0] == 0xFFFF
    assert dword(page, 0x1E0) == 511 * 1024


def test_bios_data() -> None:
    plan = plan_linux(make_bzimage(), MEMORY)
    assert segment_at(plan, 0x40E).data == struct.pack("<H", 0x9FC0)
    assert segment_at(plan, 0x413).data == struct.pack("<H", 639)
    assert segment_at(plan, 0x9FC00).data == b"\x01"


def test_segments_do_not_overlap() -> None:
    plan = plan_linux(make_bzimage(), MEMORY, "x" * 2047, bytes(5000))
    placed = sorted((segment.address, segment.end) for segment in plan.segments)
    for (_, end), (start, _) in pairwise(placed):
        assert end <= start
    assert placed[-1][1] <= MEMORY


def test_initrd_at_the_top_of_memory() -> None:
    plan = plan_linux(make_bzimage(), MEMORY, initrd=b"i" * 5000)
    address = MEMORY - 8192
    assert segment_at(plan, address).data == b"i" * 5000
    assert (dword(params(plan), 0x218), dword(params(plan), 0x21C)) == (address, 5000)


def test_initrd_below_what_the_kernel_allows() -> None:
    plan = plan_linux(make_bzimage(initrd_max=0x1FFFFFF), MEMORY, initrd=bytes(4096))
    assert dword(params(plan), 0x218) == 0x2000000 - 4096


def test_empty_initrd_is_none() -> None:
    assert dword(params(plan_linux(make_bzimage(), MEMORY, initrd=b"")), 0x218) == 0


def test_fixed_kernel_goes_where_its_header_says() -> None:
    plan = plan_linux(make_bzimage(0x20A), MEMORY)
    assert plan.entry == 0x100000
    assert dword(params(plan), 0x214) == 0x100000


def test_relocatable_kernel_goes_where_it_likes_to_be() -> None:
    plan = plan_linux(make_bzimage(0x20A, relocatable=1), MEMORY)
    assert plan.entry == 16 * MIB
    assert segment_at(plan, 16 * MIB).data == KERNEL
    assert dword(params(plan), 0x214) == 16 * MIB


def test_relocatable_kernel_in_a_small_machine() -> None:
    image = make_bzimage(0x20A, relocatable=1)
    assert plan_linux(image, 16 * MIB).entry == 4 * MIB, "aligned as it wants"
    smaller = make_bzimage(0x20A, relocatable=1, min_alignment=20)
    assert plan_linux(smaller, 16 * MIB).entry == MIB


def test_relocatable_kernel_without_a_preference() -> None:
    assert plan_linux(make_bzimage(0x205, relocatable=1), MEMORY).entry == 4 * MIB


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "kernel image of 0 bytes"),
        (make_bzimage()[:0x220], "kernel image of 544 bytes"),
        (make_bzimage(boot_flag=0x1234), "boot flag 0x1234: expected 0xaa55"),
        (make_bzimage(magic=b"ABCD"), r"setup magic b'ABCD': expected b'HdrS'"),
        (make_bzimage(protocol=0x201, jump=0x28EB), "protocol 2.01: expected 2.02 or later"),
        (make_bzimage(load_flags=0), "flags 0x00 without LOADED_HIGH: this is a zImage"),
        (make_bzimage()[:-32], "5600 bytes is cut short: expected 1536 of setup"),
        (make_bzimage(kernel=b""), "is cut short"),
        (make_bzimage(jump=0x20EB), "header ends at 0x222, but protocol 2.09 has a field at 0x24"),
        (make_bzimage(relocatable=1, alignment=3), "alignment 0x3: expected a power of two"),
        (make_bzimage(relocatable=1, alignment=0), "alignment 0x0: expected a power of two"),
    ],
)
def test_refused_images(image: bytes, message: str) -> None:
    with pytest.raises(BadDescription, match=message):
        plan_linux(image, MEMORY)


@pytest.mark.parametrize(("elf_class", "refused"), [(1, False), (2, True)])
def test_64_bit_kernel_by_its_payload(elf_class: int, *, refused: bool) -> None:
    payload = gzip.compress(b"\x7fELF" + bytes((elf_class,)) + bytes(5000))
    kernel = bytes(64) + payload + bytes(-len(payload) % 16)
    image = make_bzimage(kernel=kernel, payload=64, payload_size=len(payload))
    if refused:
        with pytest.raises(BadDescription, match="64-bit one: only 32-bit"):
            plan_linux(image, MEMORY)
    else:
        assert plan_linux(image, MEMORY)


def test_64_bit_kernel_by_its_flag() -> None:
    image = make_bzimage(0x20C, xload_flags=1)
    with pytest.raises(BadDescription, match="64-bit"):
        plan_linux(image, MEMORY)


def test_damaged_payload() -> None:
    kernel = b"\x1f\x8b\x08" + b"\xff" * 61
    with pytest.raises(BadDescription, match="gzip payload is damaged"):
        plan_linux(make_bzimage(kernel=kernel, payload_size=64), MEMORY)


def test_kernel_too_large_for_memory() -> None:
    with pytest.raises(BadDescription, match=r"0x100000-0x101000: .*0x100000-0x100800"):
        plan_linux(make_bzimage(), MIB + 2048)
    with pytest.raises(BadDescription, match="kernel needs 0x100000-0x1400000"):
        plan_linux(make_bzimage(0x20A), 16 * MIB)
    with pytest.raises(BadDescription, match="kernel needs 0x400000-0x800000"):
        plan_linux(make_bzimage(0x20A, relocatable=1), 7 * MIB)
    with pytest.raises(BadDescription, match="kernel needs 0x10000-"):
        plan_linux(make_bzimage(code_start=0x10000), MEMORY)


def test_initrd_too_large() -> None:
    with pytest.raises(BadDescription, match=r"RAM disk of 1048576 bytes: .*0x101000 and 0x200000"):
        plan_linux(make_bzimage(), 2 * MIB, initrd=bytes(MIB))


@pytest.mark.parametrize(("protocol", "limit"), [(0x205, 255), (0x206, 2047)])
def test_command_line_limits(protocol: int, limit: int) -> None:
    assert plan_linux(make_bzimage(protocol), MEMORY, "x" * limit)
    with pytest.raises(
        BadDescription, match=f"line of {limit + 1} bytes: this kernel takes {limit} at most"
    ):
        plan_linux(make_bzimage(protocol), MEMORY, "x" * (limit + 1))


def test_command_line_never_reaches_the_bios_data_area() -> None:
    image = make_bzimage(command_line_max=1 << 20)
    with pytest.raises(BadDescription, match="takes 60415 at most"):
        plan_linux(image, MEMORY, "x" * 60416)


def test_command_line_with_a_nul() -> None:
    with pytest.raises(BadDescription, match=r"command line 'a\\x00b': expected no NUL"):
        plan_linux(make_bzimage(), MEMORY, "a\0b")


def test_vmlinux() -> None:
    image = make_vmlinux()
    plan = plan_linux(image, 4 * MIB, "quiet", bytes(100))
    assert plan.protocol == "Linux vmlinux"
    assert plan.entry == 0x100000
    assert plan.registers[ESI] == BOOT_PARAMS
    page = params(plan)
    assert page[0x202:0x208] == b"HdrS\x06\x02"
    assert page[0x1FE:0x200] == b"\x55\xaa"
    assert (page[0x210], page[0x211]) == (0xFF, 0x01)
    assert dword(page, 0x228) == COMMAND_LINE
    assert dword(page, 0x218) == 4 * MIB - 4096
    with pytest.raises(BadDescription, match="kernel needs 0x100000-0x300000"):
        plan_linux(image, 2 * MIB)
    with pytest.raises(BadDescription, match="RAM disk"):
        plan_linux(image, 4 * MIB, "", bytes(2 * MIB))
    with pytest.raises(BadDescription, match="command line"):
        plan_linux(image, 4 * MIB, "x" * 2048)


def test_recognised_by_magic() -> None:
    assert is_bzimage(make_bzimage())
    assert not is_bzimage(b"")


@given(
    where=st.integers(0x1F1, 0x264),
    value=st.integers(0, 255),
    protocol=st.sampled_from([0x202, 0x205, 0x209, 0x20A]),
    cut=st.integers(0, 6000),
)
def test_damage_is_refused_or_harmless(where: int, value: int, protocol: int, cut: int) -> None:
    image = bytearray(make_bzimage(protocol, relocatable=1) if protocol > 0x204 else make_bzimage())
    image[where] = value
    try:
        plan = plan_linux(bytes(image[: len(image) - cut]), MEMORY, "quiet", bytes(100))
    except BadDescription:
        return
    assert all(segment.address >= 0 and segment.end <= MEMORY for segment in plan.segments)
    assert MIB <= plan.entry < MEMORY
