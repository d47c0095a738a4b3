"""The eBPF instruction set (RFC 9669): instructions, their encoding, what is well formed.

Supported conformance groups: base32, base64, divmul32, divmul64, atomic32, atomic64.
Packet access is for packets; helper functions and map descriptors name things of a host,
and a port filter has no host.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "FRAME_POINTER",
    "INSTRUCTION_SIZE",
    "STATE_SOURCE",
    "AluOp",
    "AtomicOp",
    "Instruction",
    "InstructionClass",
    "JumpOp",
    "MalformedProgram",
    "Mode",
    "Size",
    "decode",
    "encode",
]

INSTRUCTION_SIZE = 8
"""Bytes of a basic instruction; the 64-bit immediate load takes twice as many."""
FRAME_POINTER = 10
STATE_SOURCE = 6
"""src of the 64-bit immediate load that means map_val(map_by_idx(imm)) + next_imm."""

_LOCAL_CALL = 1
_U64 = (1 << 64) - 1


class InstructionClass(IntEnum):
    """Bits 2-0 of the opcode (section 3.1)."""

    LD = 0
    LDX = 1
    ST = 2
    STX = 3
    ALU = 4
    JMP = 5
    JMP32 = 6
    ALU64 = 7


class AluOp(IntEnum):
    """Bits 7-4 of an arithmetic opcode (section 4.1)."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    OR = 4
    AND = 5
    LSH = 6
    RSH = 7
    NEG = 8
    MOD = 9
    XOR = 10
    MOV = 11
    ARSH = 12
    END = 13


class JumpOp(IntEnum):
    """Bits 7-4 of a jump opcode (section 4.3)."""

    JA = 0
    JEQ = 1
    JGT = 2
    JGE = 3
    JSET = 4
    JNE = 5
    JSGT = 6
    JSGE = 7
    CALL = 8
    EXIT = 9
    JLT = 10
    JLE = 11
    JSLT = 12
    JSLE = 13


class Mode(IntEnum):
    """Bits 7-5 of a load or store opcode (section 5)."""

    IMM = 0
    MEM = 3
    MEMSX = 4
    ATOMIC = 6


class Size(IntEnum):
    """Bits 4-3 of a load or store opcode."""

    W = 0
    H = 1
    B = 2
    DW = 3

    @property
    def width(self) -> int:
        """In bytes."""
        return (4, 2, 1, 8)[self]


class AtomicOp(IntEnum):
    """The immediate of an atomic operation (section 5.3); FETCH may be added to the first four."""

    ADD = 0x00
    OR = 0x40
    AND = 0x50
    XOR = 0xA0
    FETCH = 0x01
    XCHG = 0xE1
    CMPXCHG = 0xF1


class MalformedProgram(ValueError):
    """Bytes that are no program: `index` counts instructions, `reason` says what is wrong."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"instruction {index}: {reason}")
        self.index = index
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction as it is encoded; `imm` is signed, 64 bits wide for the wide load.

    The wide load takes two places in a program, as jumps count them: itself and a
    `None`.
    """

    opcode: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    imm: int = 0

    @property
    def kind(self) -> InstructionClass:
        """Its class."""
        return InstructionClass(self.opcode & 7)

    @property
    def operation(self) -> int:
        """Bits 7-4 of an arithmetic or jump opcode."""
        return self.opcode >> 4

    @property
    def from_register(self) -> bool:
        """Is the second operand `src` and not `imm`?"""
        return bool(self.opcode & 8)

    @property
    def mode(self) -> int:
        """Bits 7-5 of a load or store opcode."""
        return self.opcode >> 5

    @property
    def width(self) -> int:
        """Bytes that a load or store moves."""
        return Size(self.opcode >> 3 & 3).width

    @property
    def is_arithmetic(self) -> bool:
        """Does it compute?"""
        return self.kind in {InstructionClass.ALU, InstructionClass.ALU64}

    @property
    def is_jump(self) -> bool:
        """Does it, or may it, change where the program goes on?"""
        return self.kind in {InstructionClass.JMP, InstructionClass.JMP32}

    @property
    def is_wide(self) -> bool:
        """Is it the load of a 64-bit immediate?"""
        return self.opcode == 0x18

    def target(self, index: int) -> int:
        """Where a jump or a local call at `index` goes."""
        far = self.opcode == (JumpOp.JA << 4 | InstructionClass.JMP32)
        call = self.operation == JumpOp.CALL
        return index + 1 + (self.imm if far or call else self.offset)


def decode(code: bytes) -> list[Instruction | None]:
    """The instructions of a program, the second half of a wide one as `None`.

    Raises `MalformedProgram` for everything that RFC 9669 does not define or that
    filters do not have: an opcode, a register, a field that must be zero.
    """
    if not code or len(code) % INSTRUCTION_SIZE:
        raise MalformedProgram(
            0, f"a program of {len(code)} bytes, expected a positive multiple of {INSTRUCTION_SIZE}"
        )
    program: list[Instruction | None] = []
    raw = [struct.unpack_from("<BBhi", code, at) for at in range(0, len(code), INSTRUCTION_SIZE)]
    index = 0
    while index < len(raw):
        opcode, registers, offset, imm = raw[index]
        found = Instruction(opcode, registers & 0xF, registers >> 4, offset, imm)
        if found.is_wide:
            if index + 1 == len(raw):
                raise MalformedProgram(index, "a wide load without its second half")
            if raw[index + 1][:3] != (0, 0, 0):
                raise MalformedProgram(index + 1, "the second half of a wide load is not plain")
            high = raw[index + 1][3]
            # Of a reference to the state the low half is the map, the high one the place in it.
            value = (imm & 0xFFFFFFFF) | (high & 0xFFFFFFFF) << 32
            found = Instruction(opcode, found.dst, found.src, offset, value)
        reason = _defect(found)
        if reason:
            raise MalformedProgram(index, reason)
        program.append(found)
        if found.is_wide:
            program.append(None)
        index = len(program)
    return program


def encode(program: Iterable[Instruction | None]) -> bytes:
    """The bytes of a program; the second half of a wide load is made from the first."""
    code = bytearray()
    for one in program:
        if one is None:
            continue
        low = (one.imm & 0xFFFFFFFF) - ((one.imm & 0x80000000) << 1)
        code += struct.pack("<BBhi", one.opcode, one.dst | one.src << 4, one.offset, low)
        if one.is_wide:
            code += struct.pack("<II", 0, one.imm >> 32 & 0xFFFFFFFF)
    return bytes(code)


def _defect(one: Instruction) -> str:
    """Why an instruction is not one, or nothing."""
    if one.dst > FRAME_POINTER or one.src > FRAME_POINTER:
        return f"register r{max(one.dst, one.src)} does not exist"
    if one.is_arithmetic:
        return _arithmetic_defect(one)
    if one.is_jump:
        return _jump_defect(one)
    return _memory_defect(one)


def _unknown(one: Instruction) -> str:
    return f"opcode {one.opcode:#04x} is not defined"


def _must_be_zero(one: Instruction, *fields: str) -> str:
    for name in fields:
        value = getattr(one, name)
        if value:
            return f"{name} is {value}, expected 0 with opcode {one.opcode:#04x}"
    return ""


def _arithmetic_defect(one: Instruction) -> str:
    operation, wide = one.operation, one.kind == InstructionClass.ALU64
    if operation > AluOp.END:
        return _unknown(one)
    if operation == AluOp.END:
        if one.imm not in {16, 32, 64}:
            return f"byte swap of {one.imm} bits, expected 16, 32 or 64"
        if wide and one.from_register:
            return _unknown(one)
        return _must_be_zero(one, "src", "offset")
    if operation == AluOp.NEG:
        return _unknown(one) if one.from_register else _must_be_zero(one, "src", "offset", "imm")
    if operation in {AluOp.DIV, AluOp.MOD}:
        if one.offset not in {0, 1}:
            return f"offset is {one.offset}, expected 0 (unsigned) or 1 (signed)"
    elif operation == AluOp.MOV and one.from_register:
        widths = {0, 8, 16, 32} if wide else {0, 8, 16}
        if one.offset not in widths:
            return f"sign extension of {one.offset} bits, expected one of {sorted(widths)}"
    elif one.offset:
        return _must_be_zero(one, "offset")
    return _must_be_zero(one, "imm" if one.from_register else "src")


def _jump_defect(one: Instruction) -> str:
    operation, narrow = one.operation, one.kind == InstructionClass.JMP32
    if operation > JumpOp.JSLE:
        return _unknown(one)
    if operation == JumpOp.JA:
        zero = ("dst", "src", "offset") if narrow else ("dst", "src", "imm")
        return _unknown(one) if one.from_register else _must_be_zero(one, *zero)
    if operation in {JumpOp.CALL, JumpOp.EXIT} and (narrow or one.from_register):
        return _unknown(one)
    if operation == JumpOp.EXIT:
        return _must_be_zero(one, "dst", "src", "offset", "imm")
    if operation == JumpOp.CALL:
        if one.src != _LOCAL_CALL:
            return f"call of helper function {one.imm}: a port filter has none"
        return _must_be_zero(one, "dst", "offset")
    return _must_be_zero(one, "imm" if one.from_register else "src")


def _memory_defect(one: Instruction) -> str:
    if one.is_wide:
        if one.src not in {0, STATE_SOURCE}:
            return f"wide load of kind {one.src}, expected 0 (a number) or 6 (the state)"
        if one.src == STATE_SOURCE and one.imm & 0xFFFFFFFF:
            return f"state {one.imm & 0xFFFFFFFF}: a port filter has one, number 0"
        return _must_be_zero(one, "offset")
    kind, mode = one.kind, one.mode
    if kind == InstructionClass.LDX and mode == Mode.MEM:
        return _must_be_zero(one, "imm")
    if kind == InstructionClass.LDX and mode == Mode.MEMSX:
        return _unknown(one) if one.width == 8 else _must_be_zero(one, "imm")
    if kind == InstructionClass.ST and mode == Mode.MEM:
        return _must_be_zero(one, "src")
    if kind == InstructionClass.STX and mode == Mode.MEM:
        return _must_be_zero(one, "imm")
    if kind == InstructionClass.STX and mode == Mode.ATOMIC:
        return _atomic_defect(one)
    if kind == InstructionClass.LD:
        return "access to a packet: a port filter has none"
    return _unknown(one)


def _atomic_defect(one: Instruction) -> str:
    if one.width < 4:
        return f"atomic operation on {one.width} bytes, expected 4 or 8"
    simple: Sequence[int] = (AtomicOp.ADD, AtomicOp.OR, AtomicOp.AND, AtomicOp.XOR)
    if one.imm & ~AtomicOp.FETCH in simple or one.imm in {AtomicOp.XCHG, AtomicOp.CMPXCHG}:
        return ""
    return f"atomic operation {one.imm:#x} is not defined"
