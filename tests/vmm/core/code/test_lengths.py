"""Lengths against Capstone's, for all opcodes with all kinds of operands."""

import itertools
import random

import capstone
import pytest

from vmm.core.code.lengths import LengthDecoder

MODRM = [
    (mode << 6) | (field << 3) | rm
    for mode, field, rm in itertools.product(*[range(4), (0, 2, 7), range(8)])
]
SIBS = (0x00, 0x05, 0x25, 0xE4)
PREFIXES = (b"", b"\x66", b"\x67", b"\x66\x67", b"\xf3", b"\xf2\x66", b"\xf0", b"\x2e\x65")

# SSE4a, which the processor has not, and what Capstone thinks to have no operand.
NOT_OURS = {"extrq", "insertq", "ud0", "ud1"}


@pytest.fixture(scope="module", params=[True, False], ids=["32 bits", "16 bits"])
def wide(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def length(code: bytes, *, wide: bool = True) -> int:
    return int(LengthDecoder(bytearray(code)).length(0, len(code), wide))


def disagreements(opcodes: list[bytes], *, wide: bool) -> list[str]:
    peer = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32 if wide else capstone.CS_MODE_16)
    tail = bytes(range(0x11, 0x1F))
    buffer = bytearray(64)
    decoder = LengthDecoder(buffer)
    found = []
    for prefix, opcode, modrm, sib in itertools.product(PREFIXES, opcodes, MODRM, SIBS):
        code = prefix + opcode + bytes((modrm, sib)) + tail
        theirs = next(peer.disasm_lite(code, 0x1000, 1), None)
        if theirs is None or theirs[2] in NOT_OURS:
            continue
        buffer[: len(code)] = code
        if decoder.length(0, len(code), wide) != theirs[1]:
            found.append(f"{code[: theirs[1]].hex(' ')}: {theirs[2]} {theirs[3]}")
    return found


def test_one_byte_opcodes(*, wide: bool) -> None:
    prefixes = {0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x0F}
    # C4, C5, 62 and 8F may start an AVX or XOP instruction.
    opcodes = [bytes([i]) for i in range(256) if i not in prefixes | {0x62, 0x8F, 0xC4, 0xC5}]
    assert disagreements(opcodes, wide=wide) == []


def test_two_byte_opcodes(*, wide: bool) -> None:
    assert disagreements([bytes([0x0F, i]) for i in range(256)], wide=wide) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (b"\x8f\x05\x00\x10\x00\x00", 6),
        (b"\x62\x44\x24\x10", 4),
        (b"\xc5\x05\x00\x10\x00\x00", 6),
        (b"\x0f\x20\xc0", 3),
        (b"\x66\xe8\x00\x10", 4),
        # Forms that no processor has; the engine takes a register's number from them.
        (b"\x0f\x72\x35\xfe", 4),
        (b"\x66\x0f\x73\x44\x01", 5),
        (b"\x0f\x50\x05", 3),
        (b"\xf3\x0f\xd6\x05", 4),
        (b"\x66\x0f\xd6\x05\x00\x00\x00\x00", 8),
        (b"\x66\xf3\x0f\xd6\x05\x00\x00\x00\x00", 9),
    ],
)
def test_forms_that_capstone_sees_otherwise(code: bytes, expected: int) -> None:
    assert length(code + bytes(8)) == expected


def test_what_is_cut_off_ends_at_the_end() -> None:
    for code in (b"\x66", b"\x0f", b"\x81", b"\x81\x04", b"\xb8\x01\x02", b"\xf7\x05"):
        assert length(code) == len(code)


def test_whatever_the_bytes_a_length_is_positive_and_bounded() -> None:
    source = random.Random(1)  # noqa: S311 - inputs, no secrets
    for _ in range(20_000):
        code = source.randbytes(source.randint(1, 24))
        assert 1 <= length(code) <= len(code)
