"""Carry out the one instruction that stored to a traced page.

The store exits before it happens, so the monitor does it in the processor's
place: decode, compute, write, move EIP on. The forms are those that kernels use
on page tables (MOV, XCHG, logic and arithmetic, bit tests, CMPXCHG, XADD, and one
step of STOS and MOVS), in 8, 16 and 32 bits, in 32-bit code. A form that is not
here, and a store that crosses into another page, makes the caller give up the
shadow of the page instead.
"""

import cython

from vmm.core.code.fetch import InstructionBytes
from vmm.core.cpu.cpustate import CpuState
from vmm.core.memory import GuestMemory
from vmm.core.mmu.paging import GuestPaging
from vmm.core.saved import Fields

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
SIGN_EXTENSION = cython.declare(cython.uint, 0xFFFFFF00)
NOT_SECOND_BYTE = cython.declare(cython.uint, 0xFFFF00FF)
EAX = cython.declare(cython.uint, 0)
ECX = cython.declare(cython.uint, 1)
EDX = cython.declare(cython.uint, 2)
EBX = cython.declare(cython.uint, 3)
ESI = cython.declare(cython.uint, 6)
EDI = cython.declare(cython.uint, 7)

# Segments, in the order of CpuState.
CS = cython.declare(cython.uint, 1)
SEGMENTS = cython.declare(cython.uint, 6)
CODE32 = cython.declare(cython.uint, 0x400000)

CARRY = cython.declare(cython.uint, 0x001)
PARITY = cython.declare(cython.uint, 0x004)
ADJUST = cython.declare(cython.uint, 0x010)
ZERO = cython.declare(cython.uint, 0x040)
SIGN = cython.declare(cython.uint, 0x080)
DIRECTION = cython.declare(cython.uint, 0x400)
OVERFLOW = cython.declare(cython.uint, 0x800)
ARITHMETIC = cython.declare(cython.uint, 0x8D5)

# Operations in the encoding of the 80/81/83 group.
ADD = cython.declare(cython.uint, 0)
OR = cython.declare(cython.uint, 1)
AND = cython.declare(cython.uint, 4)
SUB = cython.declare(cython.uint, 5)
XOR = cython.declare(cython.uint, 6)


@cython.final
@cython.cclass
class StoreEmulator:
    """Emulates stores whose destination lies at a known guest-physical address.

    The destination is RAM, or the registers of a `device` while that is set.

    After a store `touched` is the number of bytes that were written.
    """

    SAVED = Fields(
        wiring="cpu memory paging code",
        transient="physical size device touched",
    )

    def __init__(
        self, cpu: CpuState, memory: GuestMemory, paging: GuestPaging, code: InstructionBytes
    ):
        self.cpu = cpu
        self.memory = memory
        self.paging = paging
        self.code = code
        self.physical = 0
        self.size = 4
        self.touched = 0
        self.device = None

    def emulate(self, eip: cython.uint, physical: cython.uint) -> cython.bint:
        """Carry out the store at `eip`; false, and nothing done, for an unknown form."""
        code: InstructionBytes = self.code
        if not self.cpu.attributes(CS) & CODE32:
            return False
        code.load(eip)
        self.physical = physical
        self.size = 4
        at: cython.uint = 0
        op: cython.uint = code.byte(0)
        # LOCK and segment overrides change nothing here; the address is known.
        while at < 8 and op in (0xF0, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, 0x66):
            if op == 0x66:
                self.size = 2
            at += 1
            op = code.byte(at)
        if op == 0x0F:
            return self.two_byte(eip, at + 1)
        if op in (0x00, 0x08, 0x20, 0x28, 0x30, 0x80, 0x86, 0x88, 0xA2, 0xC6):
            self.size = 1
        if (physical & 0xFFF) + self.size > 4096:
            return False
        modrm: cython.uint = at + 1
        number: cython.uint = (code.byte(modrm) >> 3) & 7
        length: cython.uint
        value: cython.uint
        if self.is_rest(code.dword(modrm) if op in (0xA2, 0xA3) else code.effective_address(modrm)):
            return False
        if op in (0x88, 0x89):
            length = 1 + code.operand_length(modrm)
            self.store(self.register_value(number))
        elif op in (0xA2, 0xA3):
            length = 5
            self.store(self.register_value(EAX))
        elif op in (0xC6, 0xC7):
            length = 1 + code.operand_length(modrm)
            self.store(code.dword(at + length))
            length += self.size
        elif op in (0x86, 0x87):
            length = 1 + code.operand_length(modrm)
            value = self.load()
            self.store(self.register_value(number))
            self.set_register(number, value)
        elif op in (0x00, 0x01, 0x08, 0x09, 0x20, 0x21, 0x28, 0x29, 0x30, 0x31):
            length = 1 + code.operand_length(modrm)
            self.arithmetic(op >> 3, self.register_value(number))
        elif op in (0x80, 0x81, 0x83):
            if number not in (ADD, OR, AND, SUB, XOR):
                return False
            length = 1 + code.operand_length(modrm)
            if op == 0x81:
                value = code.dword(at + length)
                length += self.size
            else:
                value = code.byte(at + length)
                if op == 0x83 and value & 0x80:
                    value |= SIGN_EXTENSION
                length += 1
            self.arithmetic(number, value & self.mask())
        else:
            return False
        return self.finish(eip + at + length) == 0

    def two_byte(self, eip: cython.uint, at: cython.uint) -> cython.bint:
        """Forms that start with 0F."""
        code: InstructionBytes = self.code
        op: cython.uint = code.byte(at)
        number: cython.uint = (code.byte(at + 1) >> 3) & 7
        length: cython.uint = 1 + code.operand_length(at + 1)
        bit: cython.uint
        value: cython.uint
        if op in (0xB0, 0xC0):
            self.size = 1
        if (self.physical & 0xFFF) + (8 if op == 0xC7 else self.size) > 4096:
            return False
        # A bit offset in a register moves the access away from the operand; at worst that
        # gives up a shadow that could have been kept.
        if self.is_rest(code.effective_address(at + 1)):
            return False
        if op in (0xAB, 0xB3, 0xBB, 0xBA):
            if op == 0xBA:
                if number < 5:
                    return False
                bit = code.byte(at + length)
                length += 1
                op = 0xAB + 8 * (number - 5)
            else:
                bit = self.register_value(number)
            bit &= 8 * self.size - 1
            value = self.load()
            flags: cython.uint = self.cpu.eflags() & ~CARRY
            self.cpu.set_eflags(flags | ((value >> bit) & 1))
            if op == 0xAB:
                value |= cython.cast(cython.uint, 1) << bit
            elif op == 0xB3:
                value &= ~(cython.cast(cython.uint, 1) << bit)
            else:
                value ^= cython.cast(cython.uint, 1) << bit
            self.store(value)
        elif op in (0xB0, 0xB1):
            value = self.load()
            accumulator: cython.uint = self.register_value(EAX)
            if value == accumulator:
                self.store(self.register_value(number))
            else:
                self.store(value)
                self.set_register(EAX, value)
            self.set_difference_flags(accumulator, value)
        elif op in (0xC0, 0xC1):
            value = self.load()
            operand: cython.uint = self.register_value(number)
            self.arithmetic(ADD, operand)
            self.set_register(number, value)
        elif op == 0xC7 and number == 1:
            self.exchange8()
        else:
            return False
        return self.finish(eip + at + length) == 0

    def exchange8(self):
        """CMPXCHG8B."""
        self.size = 4
        low: cython.uint = self.load()
        self.physical += 4
        high: cython.uint = self.load()
        equal: cython.bint = low == self.cpu.reg(EAX) and high == self.cpu.reg(EDX)
        if equal:
            self.store(self.cpu.reg(ECX))
            self.physical -= 4
            self.store(self.cpu.reg(EBX))
        else:
            self.physical -= 4
            self.cpu.set_reg(EAX, low)
            self.cpu.set_reg(EDX, high)
        self.touched = 8
        self.size = 8
        self.cpu.set_eflags((self.cpu.eflags() & ~ZERO) | (ZERO if equal else 0))

    def emulate_string(self, eip: cython.uint, physical: cython.uint) -> cython.bint:
        """One step of STOS or MOVS, repeated or not; false for anything else."""
        code: InstructionBytes = self.code
        if not self.cpu.attributes(CS) & CODE32:
            return False
        code.load(eip)
        self.physical = physical
        self.size = 4
        repeated: cython.bint = False
        at: cython.uint = 0
        op: cython.uint = code.byte(0)
        while at < 8 and op in (0xF2, 0xF3, 0x66, 0x26, 0x3E):
            if op == 0x66:
                self.size = 2
            elif op in (0xF2, 0xF3):
                repeated = True
            at += 1
            op = code.byte(at)
        if op in (0xAA, 0xA4):
            self.size = 1
        elif op not in (0xAB, 0xA5):
            return False
        if (physical & 0xFFF) + self.size > 4096 or self.is_rest(self.cpu.reg(EDI)):
            return False
        step: cython.uint = self.size
        if self.cpu.eflags() & DIRECTION:
            step = (0 - step) & LOW_32
        if op in (0xAA, 0xAB):
            self.store(self.register_value(EAX))
        else:
            value: cython.uint = 0
            i: cython.uint
            for i in range(self.size):
                source: cython.Py_ssize_t = self.paging.translate(
                    (self.cpu.reg(ESI) + i) & LOW_32, False, self.cpu.cpl() == 3
                )
                if source < 0:
                    return False
                value |= self.memory.read8(cython.cast(cython.uint, source)) << (8 * i)
            self.store(value)
            self.cpu.set_reg(ESI, (self.cpu.reg(ESI) + step) & LOW_32)
        self.cpu.set_reg(EDI, (self.cpu.reg(EDI) + step) & LOW_32)
        if repeated:
            self.cpu.set_reg(ECX, (self.cpu.reg(ECX) - 1) & LOW_32)
            if self.cpu.reg(ECX):
                return True
        return self.finish(eip + at + 1) == 0

    # ---- operands

    def is_rest(self, address: cython.uint) -> cython.bint:
        """Did only the rest of a store across a page's edge fault here?

        `address` is where the operand starts, without its segment's base.
        """
        if self.physical & 0xFFF:
            return False
        moved: cython.uint = address
        segment: cython.uint
        for segment in range(SEGMENTS):
            moved |= self.cpu.base(segment)
        return (moved & 0xFFF) != 0

    def mask(self) -> cython.uint:
        """All ones in the operand's size."""
        if self.size == 1:
            return 0xFF
        if self.size == 2:
            return 0xFFFF
        return cython.cast(cython.uint, LOW_32)

    def load(self) -> cython.uint:
        """The destination's present value."""
        value: cython.uint = 0
        i: cython.uint
        if self.device is not None:
            return self.device.read(self.physical, self.size)
        if self.size == 4 and not self.physical & 3:
            return self.memory.read32(self.physical)
        for i in range(self.size):
            value |= self.memory.read8(self.physical + i) << (8 * i)
        return value

    def store(self, value: cython.uint) -> cython.int:
        """Write the destination."""
        i: cython.uint
        self.touched = self.size
        if self.device is not None:
            return self.device.write(self.physical, self.size, value & self.mask())
        if self.size == 4 and not self.physical & 3:
            return self.memory.write32(self.physical, value)
        for i in range(self.size):
            self.memory.write8(self.physical + i, (value >> (8 * i)) & 0xFF)
        return 0

    def register_value(self, number: cython.uint) -> cython.uint:
        """A register in the operand's size; bytes 4-7 are AH, CH, DH, BH."""
        if self.size == 1 and number >= 4:
            return (self.cpu.reg(number - 4) >> 8) & 0xFF
        return self.cpu.reg(number) & self.mask()

    def set_register(self, number: cython.uint, value: cython.uint) -> cython.int:
        """Write a register in the operand's size."""
        if self.size == 1 and number >= 4:
            number -= 4
            return self.cpu.set_reg(
                number, (self.cpu.reg(number) & NOT_SECOND_BYTE) | ((value & 0xFF) << 8)
            )
        mask: cython.uint = self.mask()
        return self.cpu.set_reg(number, (self.cpu.reg(number) & ~mask) | (value & mask))

    def arithmetic(self, operation: cython.uint, operand: cython.uint) -> cython.int:
        """Destination = destination op operand, with flags."""
        before: cython.uint = self.load()
        mask: cython.uint = self.mask()
        result: cython.uint
        carry: cython.uint = 0
        adjust: cython.uint = 0
        overflow: cython.uint = 0
        if operation == OR:
            result = before | operand
        elif operation == AND:
            result = before & operand
        elif operation == XOR:
            result = before ^ operand
        elif operation == ADD:
            result = (before + operand) & mask
            carry = CARRY if result < before else 0
            overflow = (before ^ result) & (operand ^ result)
            adjust = (before ^ operand ^ result) & ADJUST
        else:
            result = (before - operand) & mask
            carry = CARRY if before < operand else 0
            overflow = (before ^ operand) & (before ^ result)
            adjust = (before ^ operand ^ result) & ADJUST
        self.store(result)
        return self.set_result_flags(result, carry, adjust, overflow)

    def set_difference_flags(self, left: cython.uint, right: cython.uint) -> cython.int:
        """Flags of left - right, as CMP sets them."""
        result: cython.uint = (left - right) & self.mask()
        return self.set_result_flags(
            result,
            CARRY if left < right else 0,
            (left ^ right ^ result) & ADJUST,
            (left ^ right) & (left ^ result),
        )

    def set_result_flags(
        self,
        result: cython.uint,
        carry: cython.uint,
        adjust: cython.uint,
        overflow: cython.uint,
    ) -> cython.int:
        """Flags of a result; `overflow` carries the flag in the operand's top bit."""
        top: cython.uint = 8 * self.size - 1
        flags: cython.uint = carry | adjust
        if (overflow >> top) & 1:
            flags |= OVERFLOW
        if (result >> top) & 1:
            flags |= SIGN
        if not result:
            flags |= ZERO
        parity: cython.uint = (result ^ (result >> 4)) & 15
        if not (0x6996 >> parity) & 1:
            flags |= PARITY
        return self.cpu.set_eflags((self.cpu.eflags() & ~ARITHMETIC) | flags)

    def finish(self, eip: cython.uint) -> cython.int:
        """Go on after the instruction."""
        return self.cpu.set_eip(eip & LOW_32)
