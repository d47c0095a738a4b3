"""Instructions as bytes: what is written is read, and what RFC 9669 does not define is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.filters.isa import Instruction, MalformedProgram, decode, encode

EXIT = Instruction(0x95)


def raw(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, dst | src << 4, offset, imm)


def test_figures_of_the_rfc() -> None:
    # RFC 9669, section 3: an example of each encoding.
    assert encode([Instruction(0x07, dst=1, imm=0x11223344)]).hex() == "0701000044332211"
    wide = Instruction(0x18, dst=2, imm=0x1122334455667788)
    assert encode([wide, None]).hex() == "18020000887766550000000044332211"
    assert decode(encode([wide, None])) == [wide, None]


@given(st.binary(min_size=8, max_size=64).map(lambda b: b[: len(b) // 8 * 8]))
def test_bytes_that_are_a_program_come_back(code: bytes) -> None:
    try:
        program = decode(code)
    except MalformedProgram:
        return
    assert encode(program) == code


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"", "a program of 0 bytes"),
        (b"\x95", "a program of 1 bytes"),
        (raw(0x18), "without its second half"),
        (raw(0x18) + raw(0x95), "second half of a wide load is not plain"),
        (raw(0x18, src=1) + raw(0), "wide load of kind 1"),
        (raw(0x18, src=6, imm=1) + raw(0), "state 1"),
        (raw(0x07, dst=11), "register r11"),
        (raw(0x0F, src=15), "register r15"),
        (raw(0xE7), "opcode 0xe7"),
        (raw(0xFF), "opcode 0xff"),
        (raw(0x07, src=1), "src is 1"),
        (raw(0x0F, imm=1), "imm is 1"),
        (raw(0x07, offset=1), "offset is 1"),
        (raw(0x37, offset=2), "offset is 2"),
        (raw(0xBF, offset=7), "sign extension of 7 bits"),
        (raw(0xBC, offset=32), "sign extension of 32 bits"),
        (raw(0x87, imm=1), "imm is 1"),
        (raw(0x8F), "opcode 0x8f"),
        (raw(0xD4, imm=8), "byte swap of 8 bits"),
        (raw(0xDF, imm=16), "opcode 0xdf"),
        (raw(0x85, imm=1), "helper function 1"),
        (raw(0x85, src=2, imm=1), "helper function 1"),
        (raw(0x8D), "opcode 0x8d"),
        (raw(0x95, dst=1), "dst is 1"),
        (raw(0x96), "opcode 0x96"),
        (raw(0x0D), "opcode 0x0d"),
        (raw(0x05, imm=1), "imm is 1"),
        (raw(0x06, offset=1), "offset is 1"),
        (raw(0x20), "packet"),
        (raw(0x40), "packet"),
        (raw(0x99), "opcode 0x99"),
        (raw(0x9B), "opcode 0x9b"),
        (raw(0x61, imm=4), "imm is 4"),
        (raw(0x62, src=4), "src is 4"),
        (raw(0xDB, imm=0x02), "atomic operation 0x2"),
        (raw(0xD3), "atomic operation on 1 bytes"),
        (raw(0xCB), "atomic operation on 2 bytes"),
    ],
)
def test_what_is_no_program(code: bytes, reason: str) -> None:
    with pytest.raises(MalformedProgram, match=reason):
        decode(code)
