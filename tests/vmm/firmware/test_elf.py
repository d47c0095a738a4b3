import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.core.errors import BadDescription
from vmm.firmware.elf import is_elf, parse_elf

PAGE_OFFSET = 0xC0000000
Program = tuple[int, int, int, bytes, int]


def make_elf(programs: list[Program], entry: int = 0x100000, **ident: Any) -> bytes:
    """`programs` are type, virtual and physical address, contents and size in memory."""
    head = {"class_": 1, "data": 1, "kind": 2, "machine": 3, "size": 32} | ident
    data_at = 52 + 32 * len(programs)
    headers, contents = b"", b""
    for kind, virtual, physical, content, in_memory in programs:
        offset = data_at + len(contents)
        headers += struct.pack(
            "<8I", kind, offset, virtual, physical, len(content), in_memory, 7, 4096
        )
        contents += content
    start = struct.pack(
        "<4sBBB9xHHIIIIIHHHHHH",
        b"\x7fELF",
        head["class_"],
        head["data"],
        1,
        head["kind"],
        head["machine"],
        1,
        entry,
        52,
        0,
        0,
        52,
        head["size"],
        len(programs),
        0,
        0,
        0,
    )
    return start + headers + contents


TEXT: Program = (1, PAGE_OFFSET + 0x100000, 0x100000, b"code", 4)
DATA: Program = (1, PAGE_OFFSET + 0x102000, 0x102000, b"data", 0x1000)


def test_segments_by_physical_address() -> None:
    image = parse_elf(make_elf([DATA, TEXT, (4, 0, 0, b"note", 4), (1, 0, 0, b"", 0)]))
    assert [(s.address, s.data) for s in image.segments] == [
        (0x100000, b"code"),
        (0x102000, b"data"),
    ]
    assert (image.start, image.end) == (0x100000, 0x103000)
    assert image.entry == 0x100000


def test_virtual_entry() -> None:
    assert parse_elf(make_elf([TEXT, DATA], PAGE_OFFSET + 0x100002)).entry == 0x100002


def test_is_elf() -> None:
    assert is_elf(make_elf([TEXT]))
    assert not is_elf(b"MZ")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"\x7fELF", "ELF file of 4 bytes: expected 52 at least"),
        (bytes(60), r"ELF magic b'\\x00.*expected b'\\x7fELF'"),
        (make_elf([TEXT], class_=2), "64-bit"),
        (make_elf([TEXT], data=2), "ELF class 1, data 2, machine 3"),
        (make_elf([TEXT], machine=40), "machine 40: expected 1, 1 and 3"),
        (make_elf([TEXT], kind=1), "ELF type 1: expected 2, an executable"),
        (make_elf([TEXT], size=16), "program headers of 16 bytes: expected 32"),
        (make_elf([TEXT])[:60], "program headers end at file offset 0x54"),
        (make_elf([TEXT])[:-1], "ends at file offset 0x58, but the file has only 0x57"),
        (make_elf([]), "ELF file of 0 program headers: expected a PT_LOAD"),
        (make_elf([(6, 0, 0, b"x", 1)]), "of 1 program headers: expected a PT_LOAD"),
        (make_elf([(1, 0, 0x100000, b"xyz", 2)]), "0x3 bytes in the file and 0x2 in memory"),
        (make_elf([(1, 0, 0xFFFFFFF0, b"x", 32)]), "all below 4 GiB"),
        (make_elf([TEXT], 0x200000), "ELF entry 0x200000 lies in none of the 1 segments"),
        (make_elf([TEXT, (1, 0, 0x100002, b"x", 1)]), "overlap: 0x100000-0x100004"),
    ],
)
def test_refused(image: bytes, message: str) -> None:
    with pytest.raises(BadDescription, match=message):
        parse_elf(image)


@given(where=st.integers(0, 120), value=st.integers(0, 255), cut=st.integers(0, 130))
def test_damage_is_refused_or_harmless(where: int, value: int, cut: int) -> None:
    image = bytearray(make_elf([TEXT, DATA]))
    image[where % len(image)] = value
    try:
        parsed = parse_elf(bytes(image[: len(image) - cut]))
    except BadDescription:
        return
    assert parsed.start <= parsed.entry < parsed.end
