import struct

import pytest

from vmm.core.errors import BadDescription
from vmm.firmware.multiboot import is_multiboot, plan_multiboot

MAGIC, FLAGS = 0x1BADB002, 0x10000
MEMORY = 16 << 20


def image(
    *,
    at: int = 0,
    flags: int = FLAGS,
    header: int | None = None,
    load: int = 0x100000,
    load_end: int = 0,
    bss_end: int = 0,
    entry: int = 0x100020,
    size: int = 256,
) -> bytes:
    header = load + at if header is None else header
    fields = (MAGIC, flags, -(MAGIC + flags) & 0xFFFFFFFF, header, load, load_end, bss_end, entry)
    return (bytes(at) + struct.pack("<8I", *fields)).ljust(size, b"\x90")


@pytest.mark.parametrize("at", [0, 4, 0x100, 8192 - 32])
def test_a_header_in_the_first_8_kib_is_found(at: int) -> None:
    data = image(at=at, size=at + 64, entry=0x100000 + at)
    assert is_multiboot(data)
    plan = plan_multiboot(data, MEMORY, "")
    assert (plan.segments[0].address, plan.segments[0].data) == (0x100000, data)
    assert plan.entry == 0x100000 + at


@pytest.mark.parametrize("at", [1, 2, 8192, 8192 - 28])
def test_a_header_elsewhere_is_none(at: int) -> None:
    data = image(at=at, size=at + 64)
    assert not is_multiboot(data)
    with pytest.raises(BadDescription, match="no Multiboot header"):
        plan_multiboot(data, MEMORY, "")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flags": 0}, "lack bit 16"),
        ({"header": 0xFF000}, "does not fit load address"),
        ({"header": 0x200000}, "does not fit load address"),
        ({"load_end": 0x100200}, "holds only 256 bytes"),
        ({"load_end": 0xFFFFF}, "Multiboot image ends"),
        ({"load": 0x90000, "entry": 0x90020}, "guest occupies 0x90000-0x90100"),
        ({"bss_end": MEMORY + 1}, "guest occupies"),
        ({"load": 0xFFFFFF00, "entry": 0xFFFFFF20}, "guest occupies"),
        ({"entry": 0xFFFFF}, "entry 0xfffff is outside"),
        ({"entry": 0x100100}, "entry 0x100100 is outside"),
    ],
)
def test_headers_that_do_not_fit(fields: dict[str, int], message: str) -> None:
    with pytest.raises(BadDescription, match=message):
        plan_multiboot(image(**fields), MEMORY, "")


def test_an_empty_file() -> None:
    with pytest.raises(BadDescription, match="no Multiboot header"):
        plan_multiboot(b"", MEMORY, "")


def test_part_of_a_file() -> None:
    data = image(at=0x40, load=0x100010, header=0x100010 + 0x20, load_end=0x100080)
    plan = plan_multiboot(data, MEMORY, "")
    assert plan.segments[0].data == data[0x20 : 0x20 + 0x70]


def test_what_the_guest_is_told() -> None:
    plan = plan_multiboot(image(), MEMORY, "rounds=5")
    info = plan.segments[1]
    flags, lower, upper = struct.unpack_from("<3I", info.data)
    (text,) = struct.unpack_from("<I", info.data, 16)
    assert flags & 5 == 5
    assert (lower, upper) == (640, 15 * 1024)
    assert info.data[text - info.address :] == b"rounds=5\0"
    assert (plan.registers[0], plan.registers[3]) == (0x2BADB002, info.address)


def test_a_command_line_that_is_too_long() -> None:
    with pytest.raises(BadDescription, match="command line of 500000 characters"):
        plan_multiboot(image(), MEMORY, "x" * 500_000)
