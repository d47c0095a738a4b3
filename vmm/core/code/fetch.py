"""The bytes of the instruction that exited, and its memory operand (SDM vol. 2, chapter 2)."""

import cython

from vmm.core.cpu.cpustate import CpuState
from vmm.core.errors import StaleFetch
from vmm.core.mmu.shadow import ShadowMmu
from vmm.core.saved import Fields

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
LONGEST = cython.declare(cython.uint, 16)
SIB = cython.declare(cython.uint, 4)
DISPLACEMENT_ONLY = cython.declare(cython.uint, 5)


@cython.final
@cython.cclass
class InstructionBytes:
    """Up to 16 bytes at EIP, as the engine fetches them; zero behind a page that is not there.

    Indexes count from the first byte; a ModRM index points at the ModRM byte of an
    instruction with 32-bit addressing and flat segments.
    """

    SAVED = Fields(
        wiring="cpu shadow",
        transient="bytes",
    )

    def __init__(self, cpu: CpuState, shadow: ShadowMmu):
        self.cpu = cpu
        self.shadow = shadow
        self.bytes = bytearray(32)

    def load(self, eip: cython.uint) -> cython.int:
        """Read the instruction at `eip`; raises `StaleFetch` if it is mapped no more."""
        done: cython.uint = 0
        while done < LONGEST:
            done += self.load_part((self.cpu.linear(eip) + done) & LOW_32, done)
            if done == 0:
                raise StaleFetch(f"no instruction is mapped at {eip:#010x}")
        return 0

    def load_part(self, address: cython.uint, done: cython.uint) -> cython.uint:
        """Read on from `address`, up to the end of its page; answers how many bytes.

        None where the first byte is not mapped.
        """
        i: cython.uint
        count: cython.uint = self.shadow.fetch(address, self.bytes, done, LONGEST - done)
        if not count and done:
            count = LONGEST - done
            for i in range(done, LONGEST):
                self.bytes[i] = 0
        return count

    def skip_prefixes(self) -> cython.uint:
        """The index of the opcode."""
        at: cython.uint = 0
        while at < 8 and self.bytes[at] in (
            0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3,
        ):  # fmt: skip
            at += 1
        return at

    def byte(self, index: cython.uint) -> cython.uint:
        """One byte."""
        return self.bytes[index]

    def word(self, index: cython.uint) -> cython.uint:
        """A little-endian 16-bit immediate."""
        return self.bytes[index] | (self.bytes[index + 1] << 8)

    def dword(self, index: cython.uint) -> cython.uint:
        """A little-endian 32-bit immediate."""
        return self.word(index) | (self.word(index + 2) << 16)

    def operand_length(self, index: cython.uint) -> cython.uint:
        """Bytes of ModRM, SIB and displacement together."""
        mode: cython.uint = self.bytes[index] >> 6
        rm: cython.uint = self.bytes[index] & 7
        if mode == 3:
            return 1
        length: cython.uint = 1
        if rm == SIB:
            length = 2
            if mode == 0 and self.bytes[index + 1] & 7 == DISPLACEMENT_ONLY:
                length = 6
        elif mode == 0 and rm == DISPLACEMENT_ONLY:
            length = 5
        if mode == 1:
            length += 1
        elif mode == 2:
            length += 4
        return length

    def effective_address(self, index: cython.uint) -> cython.uint:
        """The address of the memory operand, without a segment base."""
        mode: cython.uint = self.bytes[index] >> 6
        rm: cython.uint = self.bytes[index] & 7
        after: cython.uint = index + 1
        address: cython.uint = 0
        if rm == SIB:
            sib: cython.uint = self.bytes[index + 1]
            after += 1
            if (sib >> 3) & 7 != SIB:
                address = (self.cpu.reg((sib >> 3) & 7) << (sib >> 6)) & LOW_32
            if sib & 7 == DISPLACEMENT_ONLY and mode == 0:
                address += self.dword(after)
            else:
                address += self.cpu.reg(sib & 7)
        elif mode == 0 and rm == DISPLACEMENT_ONLY:
            address = self.dword(after)
        else:
            address = self.cpu.reg(rm)
        if mode == 1:
            address += self.bytes[after] - ((self.bytes[after] & 0x80) << 1)
        elif mode == 2:
            address += self.dword(after)
        return address & LOW_32
