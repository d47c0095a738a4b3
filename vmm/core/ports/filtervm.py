"""Runs port filters: eBPF (RFC 9669), without helpers, in memory of its own.

Only verified programs come here. Memory safety does not rest on that all the same:
addresses are offsets into one buffer, each access is checked against it, a register or
a width that does not exist is a fault, and a run is cut off after a fixed number of
instructions.
"""

from array import array

import cython

from vmm.core.saved import ARRAY, Fields

CONTEXT = cython.declare(cython.uint, 0)
STACKS = cython.declare(cython.uint, 64)
FRAME_SIZE = cython.declare(cython.uint, 512)
FRAMES = cython.declare(cython.uint, 8)
STATE = cython.declare(cython.uint, 64 + 8 * 512)
# Addresses begin here, so that no small number is one.
BASE = cython.declare(cython.ulonglong, 0x10000)
STEPS = cython.declare(cython.uint, 4096)

# Offsets in the context.
PORT = cython.declare(cython.uint, 0)
SIZE = cython.declare(cython.uint, 4)
NOW = cython.declare(cython.uint, 8)
VALUE = cython.declare(cython.uint, 16)

ALL = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)
LOW = cython.declare(cython.ulonglong, 0xFFFFFFFF)
SIGN = cython.declare(cython.ulonglong, 0x8000000000000000)

# Classes, bits 2-0 of an opcode.
LD = cython.declare(cython.uint, 0)
LDX = cython.declare(cython.uint, 1)
ST = cython.declare(cython.uint, 2)
STX = cython.declare(cython.uint, 3)
ALU = cython.declare(cython.uint, 4)
JMP = cython.declare(cython.uint, 5)
JMP32 = cython.declare(cython.uint, 6)
FRAME_POINTER = cython.declare(cython.uint, 10)
REGISTERS = 11


class FilterFault(Exception):
    """A program did what the verifier should have refused."""


@cython.cfunc
@cython.inline
def signed(value: cython.ulonglong) -> cython.longlong:
    """A 64-bit pattern in two's complement, compiled and interpreted alike."""
    if value & SIGN:
        return -cython.cast(cython.longlong, ~value & ALL) - 1
    return cython.cast(cython.longlong, value)


@cython.cfunc
@cython.inline
def extended(value: cython.ulonglong, bits: cython.uint) -> cython.ulonglong:
    """The lowest `bits` of a value, its sign carried on to the 64th."""
    if bits == 64:
        return value
    low: cython.ulonglong = value & ((cython.cast(cython.ulonglong, 1) << bits) - 1)
    if (low >> (bits - 1)) & 1:
        return (low | (ALL << bits)) & ALL
    return low


@cython.cfunc
def divided(
    modulo: cython.bint, is_signed: cython.bint, a: cython.ulonglong, b: cython.ulonglong
) -> cython.ulonglong:
    """A / b or a % b; by zero gives 0 and a (RFC 9669, section 4.1)."""
    if b == 0:
        return a if modulo else cython.cast(cython.ulonglong, 0)
    if not is_signed:
        return a % b if modulo else a // b
    # On magnitudes: the one quotient that does not fit wraps around as it shall.
    x: cython.ulonglong = (~a + 1) & ALL if a & SIGN else a
    y: cython.ulonglong = (~b + 1) & ALL if b & SIGN else b
    if modulo:
        rest: cython.ulonglong = x % y
        return (~rest + 1) & ALL if a & SIGN else rest
    quotient: cython.ulonglong = x // y
    return (~quotient + 1) & ALL if (a ^ b) & SIGN else quotient


@cython.cfunc
def compute(
    operation: cython.uint,
    wide: cython.bint,
    is_signed: cython.bint,
    a: cython.ulonglong,
    b: cython.ulonglong,
) -> cython.ulonglong:
    """Two-operand arithmetic; 32-bit results are zero-extended."""
    count: cython.uint
    if not wide:
        if is_signed and (operation == 3 or operation == 9):
            a, b = extended(a, 32), extended(b, 32)
        else:
            a, b = a & LOW, b & LOW
    if operation == 0:
        a = a + b
    elif operation == 1:
        a = a - b
    elif operation == 2:
        a = a * b
    elif operation == 3:
        a = divided(False, is_signed, a, b)
    elif operation == 4:
        a = a | b
    elif operation == 5:
        a = a & b
    elif operation == 9:
        a = divided(True, is_signed, a, b)
    elif operation == 10:
        a = a ^ b
    else:
        count = cython.cast(cython.uint, b & (63 if wide else 31))
        if operation == 6:
            a = a << count
        elif operation == 7:
            a = a >> count
        else:
            a = shifted_arithmetically(a if wide else extended(a, 32), count)
    return a & (ALL if wide else LOW)


@cython.cfunc
@cython.inline
def shifted_arithmetically(value: cython.ulonglong, count: cython.uint) -> cython.ulonglong:
    """To the right, the sign bit repeated."""
    if value & SIGN:
        return ~((~value & ALL) >> count) & ALL
    return value >> count


@cython.cfunc
def swapped(value: cython.ulonglong, bits: cython.uint) -> cython.ulonglong:
    """The lowest `bits` with their bytes in the opposite order."""
    result: cython.ulonglong = 0
    i: cython.uint
    for i in range(bits // 8):
        result = (result << 8) | ((value >> (8 * i)) & 0xFF)
    return result


@cython.cfunc
def holds(
    operation: cython.uint, wide: cython.bint, a: cython.ulonglong, b: cython.ulonglong
) -> cython.bint:
    """Does a comparison hold?"""
    if not wide:
        if operation == 6 or operation == 7 or operation >= 12:
            a, b = extended(a, 32), extended(b, 32)
        else:
            a, b = a & LOW, b & LOW
    if operation == 1:
        return a == b
    if operation == 2:
        return a > b
    if operation == 3:
        return a >= b
    if operation == 4:
        return (a & b) != 0
    if operation == 5:
        return a != b
    if operation == 10:
        return a < b
    if operation == 11:
        return a <= b
    if operation == 6:
        return signed(a) > signed(b)
    if operation == 7:
        return signed(a) >= signed(b)
    if operation == 12:
        return signed(a) < signed(b)
    return signed(a) <= signed(b)


@cython.final
@cython.cclass
class FilterMachine:
    """One program with its memory.

    `code` is [(opcode, dst, src, offset, imm)] with one row for each 8 bytes of the
    program and the wide immediates whole in `imm`; `state` its first state. `state` is
    also an attribute: a writable view for whoever shares it. Raises `FilterFault` where a
    row names a register that does not exist.
    """

    SAVED = Fields(
        {ARRAY: "memory"},
        wiring="length opcode dst src offset imm",
        derived="state",
        transient="registers saved return_to answer",
    )

    def __init__(self, code, state):
        count = len(code)
        self.length = count
        self.opcode = array("B", bytes(count))
        self.dst = array("B", bytes(count))
        self.src = array("B", bytes(count))
        self.offset = array("h", bytes(2 * count))
        self.imm = array("Q", bytes(8 * count))
        for i, (opcode, dst, src, offset, imm) in enumerate(code):
            if not (0 <= dst < REGISTERS and 0 <= src < REGISTERS):
                raise FilterFault(f"instruction {i} has the registers {dst} and {src}: no such")
            self.opcode[i] = opcode
            self.dst[i] = dst
            self.src[i] = src
            self.offset[i] = offset
            self.imm[i] = imm & 0xFFFFFFFFFFFFFFFF
        self.memory = bytearray(int(STATE) + len(state))
        view = memoryview(self.memory)
        self.state = view[int(STATE) :]
        self.state[:] = state
        self.registers = array("Q", bytes(8 * REGISTERS))
        self.saved = array("Q", bytes(8 * 4 * int(FRAMES)))
        self.return_to = array("I", bytes(4 * int(FRAMES)))
        self.answer = 0

    def run(self, port: cython.uint, size: cython.uint, now: cython.ulonglong) -> cython.bint:
        """Show the program a read of `size` bytes at time `now`; was it answered, in `answer`?

        Raises `FilterFault` for what no verified program does.
        """
        self.store(BASE + PORT, 4, port)
        self.store(BASE + SIZE, 4, size)
        self.store(BASE + NOW, 8, now)
        self.store(BASE + VALUE, 4, 0)
        answered: cython.bint = self.execute() == 1
        self.answer = cython.cast(cython.uint, self.load(BASE + VALUE, 4))
        return answered

    def load(self, address: cython.ulonglong, width: cython.uint) -> cython.ulonglong:
        """Little-endian, from the program's own memory."""
        at: cython.size_t = self.place(address, width)
        value: cython.ulonglong = 0
        i: cython.uint
        for i in range(width):
            value |= cython.cast(cython.ulonglong, self.memory[at + i]) << (8 * i)
        return value

    def store(
        self, address: cython.ulonglong, width: cython.uint, value: cython.ulonglong
    ) -> cython.int:
        """Little-endian, to the program's own memory."""
        at: cython.size_t = self.place(address, width)
        i: cython.uint
        for i in range(width):
            self.memory[at + i] = cython.cast(cython.uchar, (value >> (8 * i)) & 0xFF)
        return 0

    def place(self, address: cython.ulonglong, width: cython.uint) -> cython.size_t:
        """Where in the memory an address is."""
        size: cython.ulonglong = self.memory.shape[0] if cython.compiled else len(self.memory)
        if address < BASE or address - BASE + width > size:
            raise FilterFault(f"access to {width} bytes at {address:#x}")
        return cython.cast(cython.size_t, address - BASE)

    def execute(self) -> cython.ulonglong:
        """From the first instruction to the last EXIT; answers r0."""
        pc: cython.uint = 0
        depth: cython.uint = 0
        steps: cython.uint = 0
        i: cython.uint
        opcode: cython.uint
        kind: cython.uint
        operation: cython.uint
        dst: cython.uint
        src: cython.uint
        width: cython.uint
        operand: cython.ulonglong
        address: cython.ulonglong
        self.registers[1] = BASE + CONTEXT
        self.registers[FRAME_POINTER] = BASE + STACKS + FRAME_SIZE
        while steps < STEPS:
            steps += 1
            if pc >= self.length:
                raise FilterFault(f"ran to instruction {pc} of {self.length}")
            opcode = self.opcode[pc]
            kind = opcode & 7
            operation = opcode >> 4
            dst = self.dst[pc]
            src = self.src[pc]
            if kind == ALU or kind == 7:
                self.arithmetic(pc, opcode, dst, src)
                pc += 1
            elif kind == JMP or kind == JMP32:
                if operation == 0:
                    pc = self.target(pc, kind == JMP32)
                elif operation == 8:
                    if depth + 1 >= FRAMES:
                        raise FilterFault(f"more than {FRAMES} functions under way at once")
                    for i in range(4):
                        self.saved[depth * 4 + i] = self.registers[6 + i]
                    self.return_to[depth] = pc + 1
                    depth += 1
                    self.registers[FRAME_POINTER] = BASE + STACKS + FRAME_SIZE * (depth + 1)
                    pc = self.target(pc, True)
                elif operation == 9:
                    if depth == 0:
                        return self.registers[0]
                    depth -= 1
                    for i in range(4):
                        self.registers[6 + i] = self.saved[depth * 4 + i]
                    self.registers[FRAME_POINTER] = BASE + STACKS + FRAME_SIZE * (depth + 1)
                    pc = self.return_to[depth]
                else:
                    operand = self.registers[src] if opcode & 8 else self.imm[pc]
                    if holds(operation, kind == JMP, self.registers[dst], operand):
                        pc = self.target(pc, False)
                    else:
                        pc += 1
            elif opcode == 0x18:
                # The state's number in the low half, the place in it in the high one.
                operand = self.imm[pc]
                self.registers[dst] = (BASE + STATE + (operand >> 32)) if src == 6 else operand
                pc += 2
            else:
                width = 8 if (opcode >> 3) & 3 == 3 else 4 >> ((opcode >> 3) & 3)
                address = self.registers[src if kind == LDX else dst]
                operand = cython.cast(cython.ulonglong, self.offset[pc] & 0xFFFF)
                address = (address + extended(operand, 16)) & ALL
                if kind == LDX:
                    operand = self.load(address, width)
                    self.registers[dst] = (
                        extended(operand, 8 * width) if opcode >> 5 == 4 else operand
                    )
                elif kind == ST:
                    self.store(address, width, self.imm[pc])
                elif opcode >> 5 == 6:
                    self.atomic(cython.cast(cython.uint, self.imm[pc] & 0xFF), address, width, src)
                else:
                    self.store(address, width, self.registers[src])
                pc += 1
        raise FilterFault(f"more than {STEPS} instructions in one run")

    def target(self, pc: cython.uint, far: cython.bint) -> cython.uint:
        """Where the jump at `pc` goes; behind the end for targets before the beginning."""
        distance: cython.longlong = self.offset[pc]
        if far:
            distance = signed(self.imm[pc])
        distance += cython.cast(cython.longlong, pc) + 1
        if distance < 0 or distance >= cython.cast(cython.longlong, self.length):
            return self.length
        return cython.cast(cython.uint, distance)

    def arithmetic(
        self, pc: cython.uint, opcode: cython.uint, dst: cython.uint, src: cython.uint
    ) -> cython.int:
        """One arithmetic instruction."""
        wide: cython.bint = opcode & 7 == 7
        operation: cython.uint = opcode >> 4
        bits: cython.uint = cython.cast(cython.uint, self.offset[pc] & 0xFFFF)
        a: cython.ulonglong = self.registers[dst]
        b: cython.ulonglong = self.registers[src] if opcode & 8 else self.imm[pc]
        if operation == 11:
            if bits:
                if bits != 8 and bits != 16 and bits != 32:
                    raise FilterFault(f"a sign of {bits} bits to extend")
                b = extended(b, bits)
            a = b & (ALL if wide else LOW)
        elif operation == 8:
            a = (~a + 1) & (ALL if wide else LOW)
        elif operation == 13:
            bits = cython.cast(cython.uint, self.imm[pc] & 0x7F)
            if bits != 16 and bits != 32 and bits != 64:
                raise FilterFault(f"the bytes of {bits} bits to order")
            if wide or opcode & 8:
                a = swapped(a, bits)
            elif bits < 64:
                a = a & ((cython.cast(cython.ulonglong, 1) << bits) - 1)
        else:
            a = compute(operation, wide, bits != 0, a, b)
        self.registers[dst] = a
        return 0

    def atomic(
        self,
        operation: cython.uint,
        address: cython.ulonglong,
        width: cython.uint,
        src: cython.uint,
    ) -> cython.int:
        """Nothing else touches the memory while a program runs: plain code will do."""
        old: cython.ulonglong = self.load(address, width)
        operand: cython.ulonglong = self.registers[src]
        new: cython.ulonglong = operand
        if operation == 0xF1:
            expected: cython.ulonglong = self.registers[0]
            if width == 4:
                expected &= LOW
            if old == expected:
                self.store(address, width, operand)
            self.registers[0] = old
            return 0
        if operation & 0xF0 == 0:
            new = (old + operand) & ALL
        elif operation & 0xF0 == 0x40:
            new = old | operand
        elif operation & 0xF0 == 0x50:
            new = old & operand
        elif operation & 0xF0 == 0xA0:
            new = old ^ operand
        self.store(address, width, new)
        if operation & 1:
            self.registers[src] = old
        return 0
