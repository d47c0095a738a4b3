"""The guest's memory on the host, and the checksum that steps over what was never touched."""

import zlib
from pathlib import Path
from random import Random

import pytest

import vmm.ram
from vmm.ram import checksum, guest_ram

SIZES = [4096, 63 * 4096, 64 * 4096, 65 * 4096, 5 << 20, (9 << 20) + 4096]


@pytest.mark.parametrize("size", SIZES)
def test_the_checksum_is_that_of_all_bytes(size: int) -> None:
    random = Random(size)  # noqa: S311 - the same bytes at every run
    memory = guest_ram(size)
    assert checksum(memory) == zlib.crc32(bytes(size))
    for _ in range(8):
        at = random.randrange(size)
        memory[at] = random.randrange(1, 256)
        assert checksum(memory) == zlib.crc32(memory[:])


def test_the_checksum_touches_nothing() -> None:
    """256 MiB of zeroes would show in the process's resident memory."""
    memory = guest_ram(256 << 20)
    before = _resident()
    assert checksum(memory) == zlib.crc32(bytes(256 << 20))
    memory[100 << 20] = 7
    checksum(memory)
    assert _resident() - before < 32 << 20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_host_that_does_not_tell_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = guest_ram(3 << 20)
    memory[1 << 20] = 1
    expected = checksum(memory)
    monkeypatch.setattr(vmm.ram, "_PAGEMAP", "/proc/self/none")
    assert checksum(memory) == expected == zlib.crc32(memory[:])
