import struct

import pytest

from vmm.core.errors import BadDescription
from vmm.firmware.e820 import E820Kind, memory_map, pack_entries


def test_map_of_a_pc() -> None:
    entries = memory_map(64 << 20)
    assert [(e.base, e.base + e.size, e.kind) for e in entries] == [
        (0, 0x9FC00, E820Kind.RAM),
        (0x9FC00, 0xA0000, E820Kind.RESERVED),
        (0xF0000, 0x100000, E820Kind.RESERVED),
        (0x100000, 64 << 20, E820Kind.RAM),
    ]


def test_packed() -> None:
    packed = pack_entries(memory_map(2 << 20))
    assert len(packed) == 4 * 20
    assert struct.unpack_from("<QQI", packed, 60) == (1 << 20, 1 << 20, 1)


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_too_little(memory: int) -> None:
    with pytest.raises(BadDescription, match=f"memory of {memory} bytes: expected more than"):
        memory_map(memory)
