"""How long the instructions of a block are (SDM vol. 2, chapter 2 and appendix A).

For counting alone: what an instruction does is of no interest here, and what no
processor of this kind knows never gets into a block, apart from its end.
"""

import cython

from vmm.core.saved import Fields

# What follows an opcode, as bits: a ModRM byte; immediates of 8 bits, of the operand's
# size, of 16 bits, of the address's size.
MODRM = cython.declare(cython.uint, 0x01)
IMM8 = cython.declare(cython.uint, 0x02)
IMMZ = cython.declare(cython.uint, 0x04)
IMM16 = cython.declare(cython.uint, 0x08)
OFFSET = cython.declare(cython.uint, 0x10)
PREFIX = cython.declare(cython.uint, 0x20)
# Group 3: TEST has an immediate, the others have none.
GROUP3 = cython.declare(cython.uint, 0x40)
# The ModRM is a register's whatever its mode: moves to and from control and debug registers,
# and, to the engine (QEMU 5.0, gen_sse), MOVMSKPS and shifts by an immediate.
REGISTER = cython.declare(cython.uint, 0x80)

# MOVQ2DQ and MOVDQ2Q, which have a prefix of repetition: to the engine as well.
MOVES_MMX = cython.declare(cython.uint, 0xD6)

LONGEST = cython.declare(cython.uint, 15)
OPERAND_SIZE = cython.declare(cython.uint, 0x66)
ADDRESS_SIZE = cython.declare(cython.uint, 0x67)
REPNE = cython.declare(cython.uint, 0xF2)
REPE = cython.declare(cython.uint, 0xF3)
ESCAPE = cython.declare(cython.uint, 0x0F)


def table(ranges):
    """256 bytes from {(first, last): bits}; later ranges win."""
    bits = bytearray(256)
    for (first, last), value in ranges.items():
        for opcode in range(first, last + 1):
            bits[opcode] = value
    return bits


def one_byte():
    """The one-byte opcode map."""
    arithmetic = {}
    for row in range(0, 0x40, 8):
        arithmetic[row, row + 3] = 0x01
        arithmetic[row + 4, row + 4] = 0x02
        arithmetic[row + 5, row + 5] = 0x04
    return table({
        **arithmetic,
        (0x26, 0x26): 0x20, (0x2E, 0x2E): 0x20, (0x36, 0x36): 0x20, (0x3E, 0x3E): 0x20,
        (0x62, 0x63): 0x01, (0x64, 0x67): 0x20, (0x68, 0x68): 0x04, (0x69, 0x69): 0x05,
        (0x6A, 0x6A): 0x02, (0x6B, 0x6B): 0x03, (0x70, 0x7F): 0x02, (0x80, 0x83): 0x03,
        (0x81, 0x81): 0x05, (0x84, 0x8F): 0x01, (0x9A, 0x9A): 0x0C, (0xA0, 0xA3): 0x10,
        (0xA8, 0xA8): 0x02, (0xA9, 0xA9): 0x04, (0xB0, 0xB7): 0x02, (0xB8, 0xBF): 0x04,
        (0xC0, 0xC1): 0x03, (0xC2, 0xC2): 0x08, (0xC4, 0xC5): 0x01, (0xC6, 0xC6): 0x03,
        (0xC7, 0xC7): 0x05, (0xC8, 0xC8): 0x0A, (0xCA, 0xCA): 0x08, (0xCD, 0xCD): 0x02,
        (0xD0, 0xD3): 0x01, (0xD4, 0xD5): 0x02, (0xD8, 0xDF): 0x01, (0xE0, 0xE7): 0x02,
        (0xE8, 0xE9): 0x04, (0xEA, 0xEA): 0x0C, (0xEB, 0xEB): 0x02, (0xF0, 0xF0): 0x20,
        (0xF2, 0xF3): 0x20, (0xF6, 0xF6): 0x43, (0xF7, 0xF7): 0x45, (0xFE, 0xFF): 0x01,
    })  # fmt: skip


def two_byte():
    """The map behind 0F; 38 and 3A lead to maps of their own, whose entries are all alike."""
    return table({
        (0x00, 0x03): 0x01, (0x0D, 0x0D): 0x01, (0x0F, 0x0F): 0x03, (0x10, 0x1F): 0x01,
        (0x20, 0x23): 0x81, (0x24, 0x27): 0x01, (0x28, 0x2F): 0x01, (0x40, 0x6F): 0x01,
        (0x50, 0x50): 0x81, (0x70, 0x70): 0x03, (0x71, 0x73): 0x83, (0x74, 0x76): 0x01,
        (0x78, 0x7F): 0x01, (0x80, 0x8F): 0x04,
        (0x90, 0x9F): 0x01, (0xA3, 0xA3): 0x01, (0xA4, 0xA4): 0x03, (0xA5, 0xA7): 0x01,
        (0xAB, 0xAB): 0x01, (0xAC, 0xAC): 0x03, (0xAD, 0xC1): 0x01, (0xBA, 0xBA): 0x03,
        (0xC2, 0xC2): 0x03, (0xC3, 0xC3): 0x01, (0xC4, 0xC6): 0x03, (0xC7, 0xC7): 0x01,
        (0xD0, 0xFF): 0x01,
    })  # fmt: skip


@cython.final
@cython.cclass
class LengthDecoder:
    """Lengths of the instructions in the buffer `code`."""

    SAVED = Fields(
        wiring="one two",
        transient="code",
    )

    def __init__(self, code):
        self.code = code
        self.one = one_byte()
        self.two = two_byte()

    def length(self, at: cython.uint, end: cython.uint, wide: cython.bint) -> cython.uint:
        """The length of the instruction at index `at`; what is cut off at `end` ends there.

        `wide` says that operands and addresses have 32 bits where no prefix says otherwise.
        """
        start: cython.uint = at
        small_operand: cython.bint = not wide
        small_address: cython.bint = not wide
        repeated: cython.bint = False
        opcode: cython.uint = 0
        bits: cython.uint = PREFIX
        while bits == PREFIX:
            if at >= end or at - start >= LONGEST:
                return at - start
            opcode = self.code[at]
            bits = self.one[opcode]
            at += 1
            if opcode == OPERAND_SIZE:
                small_operand = wide
            elif opcode == ADDRESS_SIZE:
                small_address = wide
            elif opcode == REPNE or opcode == REPE:
                repeated = True
        if opcode == ESCAPE and at < end:
            opcode = self.code[at]
            bits = self.two[opcode]
            at += 1
            if opcode == 0x38 or opcode == 0x3A:
                bits = MODRM if opcode == 0x38 else MODRM | IMM8
                at += 1
            elif opcode == MOVES_MMX and repeated and small_operand != wide:
                bits = MODRM | REGISTER
        if bits & MODRM:
            if at >= end:
                return end - start
            if bits & GROUP3 and (self.code[at] >> 3) & 7 > 1:
                bits = MODRM
            at += 1 if bits & REGISTER else self.operand(at, end, small_address)
        if bits & IMM8:
            at += 1
        if bits & IMMZ:
            at += 2 if small_operand else 4
        if bits & IMM16:
            at += 2
        if bits & OFFSET:
            at += 2 if small_address else 4
        return min(at, end) - start

    def accesses_port(self, at: cython.uint, end: cython.uint) -> cython.bint:
        """Is the instruction at `at` one of IN, OUT, INS and OUTS?"""
        while at < end and self.one[self.code[at]] == PREFIX:
            at += 1
        if at >= end:
            return False
        opcode: cython.uint = self.code[at]
        return opcode & 0xFC in (0x6C, 0xE4, 0xEC)

    def operand(self, at: cython.uint, end: cython.uint, small_address: cython.bint) -> cython.uint:
        """Bytes of ModRM, SIB and displacement together."""
        mode: cython.uint = self.code[at] >> 6
        rm: cython.uint = self.code[at] & 7
        if mode == 3:
            return 1
        if small_address:
            if mode == 0:
                return 3 if rm == 6 else 1
            return 1 + mode
        length: cython.uint = 1
        if rm == 4:
            length = 2
            if at + 1 < end:
                rm = self.code[at + 1] & 7
        if mode == 0:
            return length + 4 if rm == 5 else length
        return length + (1 if mode == 1 else 4)
