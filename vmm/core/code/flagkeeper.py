"""Flags that a page fault must not lose.

The engine evaluates the arithmetic flags when somebody asks for them, from what the instruction
that set them has left. Where a SETcc to memory asks, its translator writes the flags over what
they were evaluated from, and does so before the store. RCL and RCR of memory do the same, and
have their new flags in place before their result is. If the access faults then, the engine
evaluates once more, from flags: the guest's handler finds wrong ones in its frame, and the
instruction is repeated with them.

So a block with such an instruction is translated anew when the meter first meets it, with a
call before the instruction. There the flags are kept, and a page fault at the instruction puts
them back. Most of what a compiler stores from a comparison needs none of it: the translator
finds such conditions without evaluating flags.
"""

import cython

from vmm.core.cpu.cpustate import CpuState
from vmm.core.saved import CUSTOM, Fields

# More than a block can have, and than an honest program has; all are forgotten then, and found
# again.
MOST = 1024

# What the flags come from, where the translator knows it.
UNKNOWN = cython.declare(cython.uint, 0)
DIFFERENCE = cython.declare(cython.uint, 1)
LOGIC = cython.declare(cython.uint, 2)

ESCAPE = cython.declare(cython.uint, 0x0F)
SETCC = cython.declare(cython.uint, 0x90)
# Conditions, without their lowest bit.
OVERFLOW = cython.declare(cython.uint, 0x0)
BELOW = cython.declare(cython.uint, 0x2)
ZERO = cython.declare(cython.uint, 0x4)
SIGN = cython.declare(cython.uint, 0x8)
PARITY = cython.declare(cython.uint, 0xA)
REGISTER = cython.declare(cython.uint, 3)
# The operation in a ModRM byte, or in bits 3 to 5 of an opcode.
OR = cython.declare(cython.uint, 1)
RCL = cython.declare(cython.uint, 2)
RCR = cython.declare(cython.uint, 3)
AND = cython.declare(cython.uint, 4)
SUB = cython.declare(cython.uint, 5)
XOR = cython.declare(cython.uint, 6)
CMP = cython.declare(cython.uint, 7)

# Bit of a page-fault error code.
FETCH = cython.declare(cython.uint, 0x10)


@cython.final
@cython.cclass
class FlagKeeper:
    """Keeps the flags of one CPU across the faults of such instructions.

    `code` is the buffer that the meter decodes blocks in; `call_before` is as in `Vcpu.connect`.
    `sites` are the linear addresses that the engine calls at, and `wanted` those met since.
    """

    SAVED = Fields(
        {CUSTOM: "sites"},
        wiring="cpu code call_before",
        transient="wanted source kept at count flags",
    )

    def __init__(self, cpu: CpuState, code):
        self.cpu = cpu
        self.code = code
        self.call_before = None
        self.sites = []
        self.wanted = []
        self.source = UNKNOWN
        self.kept = False
        self.at = self.flags = 0
        self.count = 0

    def _save_sites(self):
        """For `vmm.core.saved`."""
        return [int(site) for site in self.sites]

    def _load_sites(self, value):
        """The same; the engine calls there from now on."""
        sites = [int(site) for site in value]
        if len(sites) > MOST or not all(0 <= site < 1 << 32 for site in sites):
            raise ValueError(f"{len(sites)} sites")
        self.sites = sites
        self.wanted = []
        self.call_before(sites)

    # ---- what the meter learns

    def begin(self) -> cython.void:
        """A block begins: nothing is known of its flags."""
        self.source = UNKNOWN

    def look(self, at: cython.uint, end: cython.uint, address: cython.uint) -> cython.int:
        """The next instruction of the block, at index `at` of the buffer and at `address`."""
        while at < end and self.code[at] in (
            0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3,
        ):  # fmt: skip
            at += 1
        if at + 1 >= end:
            self.source = UNKNOWN
            return 0
        opcode: cython.uint = self.code[at]
        operand: cython.uint = self.code[at + 1]
        if opcode == ESCAPE:
            if operand & 0xF0 != SETCC:
                # MOVZX, MOVSX and the long NOP leave flags alone.
                if operand not in (0xB6, 0xB7, 0xBE, 0xBF, 0x1F):
                    self.source = UNKNOWN
            elif at + 2 < end and self.code[at + 2] >> 6 != REGISTER and self.asks(operand & 0xE):
                self.want(address)
            return 0
        operation: cython.uint = (operand >> 3) & 7
        if opcode & 0xFE in (0xC0, 0xD0, 0xD2):
            self.source = UNKNOWN
            if operand >> 6 != REGISTER and operation in (RCL, RCR):
                self.want(address)
        elif opcode & 0xFC == 0x80:
            self.source = self.source_of(operation)
        elif opcode < 0x40 and opcode & 7 < 6:
            self.source = self.source_of(opcode >> 3)
        elif opcode in (0x84, 0x85, 0xA8, 0xA9) or (opcode & 0xFE == 0xF6 and operation < 2):
            # TEST.
            self.source = LOGIC
        elif not (
            # PUSH and POP, NOP, MOV and LEA.
            0x50 <= opcode <= 0x5F
            or opcode == 0x90
            or 0x88 <= opcode <= 0x8B
            or opcode == 0x8D
            or 0xA0 <= opcode <= 0xA3
            or 0xB0 <= opcode <= 0xBF
            or opcode & 0xFE == 0xC6
        ):
            self.source = UNKNOWN
        return 0

    def source_of(self, operation: cython.uint) -> cython.uint:
        """What the flags of this operation come from."""
        if operation in (SUB, CMP):
            return DIFFERENCE
        return LOGIC if operation in (OR, AND, XOR) else UNKNOWN

    def asks(self, condition: cython.uint) -> cython.bint:
        """Does a condition, without its lowest bit, have the flags evaluated over their source?"""
        if self.source == DIFFERENCE:
            return condition in (OVERFLOW, PARITY)
        return self.source == UNKNOWN or condition not in (BELOW, ZERO, SIGN)

    def want(self, address: cython.uint) -> cython.int:
        """The flags are to be kept before the instruction there."""
        if address not in self.sites and address not in self.wanted:
            self.wanted.append(int(address))
        return 0

    def watch(self):
        """Have the engine call at all that are wanted; answers where, or nothing for everywhere.

        What is translated there already must be forgotten, and the engine must not be running.
        """
        new = self.wanted
        self.wanted = []
        full = len(self.sites) + len(new) > MOST
        self.sites = new if full else self.sites + new
        self.call_before(self.sites)
        return [] if full else new

    # ---- as the guest runs

    def keep(self, address: cython.uint, count: cython.ulonglong) -> cython.int:
        """The instruction at `address` is next; the CPU's count is this, its block's included."""
        self.kept = True
        self.at = address
        self.count = count
        self.flags = self.cpu.eflags()
        return 0

    def put_back(self, count: cython.ulonglong) -> cython.int:
        """A page fault at the address that was kept last, when the CPU's count is this.

        It is the same instruction's, unless the count has changed since, or the instruction
        itself was not to be had.
        """
        if self.kept and count == self.count and not self.cpu.error_code() & FETCH:
            self.cpu.set_eflags(self.flags)
        return 0
