"""The right of running code to access a port (SDM vol. 1, section 19.5).

The engine never asks. So the run stops before a block that accesses a port in a ring
below the I/O privilege level; one instruction at a time is stepped over from there, by
the trap flag, up to the access, which is let pass or faults.
"""

import cython

from vmm.core.code.fetch import InstructionBytes
from vmm.core.cpu.cpustate import CpuState
from vmm.core.memory import GuestMemory
from vmm.core.mmu.paging import GuestPaging
from vmm.core.saved import Fields

EDX = cython.declare(cython.uint, 2)
TR = cython.declare(cython.uint, 7)
IOPL_SHIFT = cython.declare(cython.uint, 12)
VIRTUAL_8086 = cython.declare(cython.uint, 0x20000)
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
# The word of a 32-bit TSS that says where its I/O map starts.
MAP_BASE = cython.declare(cython.uint, 102)
# Bit 3 of a TSS descriptor's type: 32 bits.
TSS_32 = cython.declare(cython.uint, 0x800)


@cython.final
@cython.cclass
class PortRight:
    """The I/O privilege level and the I/O map of one CPU's task."""

    SAVED = Fields(
        wiring="cpu memory paging code",
    )

    def __init__(
        self, cpu: CpuState, memory: GuestMemory, paging: GuestPaging, code: InstructionBytes
    ):
        self.cpu = cpu
        self.memory = memory
        self.paging = paging
        self.code = code

    def is_privileged(self) -> cython.bint:
        """May every port be accessed?"""
        flags: cython.uint = self.cpu.eflags()
        return self.cpu.cpl() <= (flags >> IOPL_SHIFT) & 3 and not flags & VIRTUAL_8086

    def may_access(self, port: cython.uint, size: cython.uint) -> cython.bint:
        """May these ports be accessed?"""
        if self.is_privileged():
            return True
        limit: cython.uint = self.cpu.limit(TR)
        if not self.cpu.attributes(TR) & TSS_32 or limit < MAP_BASE + 1:
            return False
        at: cython.uint = self.byte(MAP_BASE) | (self.byte(MAP_BASE + 1) << 8)
        at += port >> 3
        # The processor reads two bytes always, so that an access may cross them.
        if at + 1 > limit:
            return False
        bits: cython.uint = self.byte(at) | (self.byte(at + 1) << 8)
        wanted: cython.uint = ((1 << size) - 1) << (port & 7)
        return not bits & wanted

    def byte(self, offset: cython.uint) -> cython.uint:
        """A byte of the TSS; all ones where none is mapped."""
        physical: cython.Py_ssize_t = self.paging.translate(
            (self.cpu.base(TR) + offset) & LOW_32, False, False
        )
        if physical < 0:
            return 0xFF
        return self.memory.read8(cython.cast(cython.uint, physical))

    def refuses(self, eip: cython.uint) -> cython.bint:
        """Is there an access at `eip` for which the right is missing?"""
        code: InstructionBytes = self.code
        code.load(eip)
        at: cython.uint = code.skip_prefixes()
        opcode: cython.uint = code.byte(at)
        if opcode & 0xFC not in (0x6C, 0xE4, 0xEC):
            return False
        small: cython.bint = not self.cpu.code_is_wide()
        i: cython.uint
        for i in range(at):
            if code.byte(i) == 0x66:
                small = self.cpu.code_is_wide()
        size: cython.uint = 1
        if opcode & 1:
            size = 2 if small else 4
        port: cython.uint = self.cpu.reg(EDX) & 0xFFFF
        if opcode & 0xFC == 0xE4:
            port = code.byte(at + 1)
        return not self.may_access(port, size)
