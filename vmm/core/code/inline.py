"""Let translated code count its blocks by itself.

The engine compiles a call of our block callback into each block, and a call that asks whether to
stop behind it: together they cost more than a short block does. A block that is nothing but code
(`BlockEntry.block`) needs neither as long as time is not up. So when such a block is entered
again, the two calls in its translation are replaced by

    mov rdi, hot                what changes at every block: words of `BlockMeter.hot`
    sub qword [rdi], count      the instructions of the block
    mov dword [rdi + 8], slot   where the meter knows it
    jg behind both calls        there is time left
    call [rdi + 24]             there is not: count it and look, as before
    nop ...                     go on to the engine's own question

and in the ROM, whose instructions are counted apart as well, by

    mov rdi, hot
    sub qword [rdi], count
    mov dword [rdi + 8], slot
    jle late
    add qword [rdi + 32], count
    jmp behind both calls
    late: call [rdi + 24]
    nop ...

but for the blocks at which its calls start.

Nothing is written before every byte that is there has been found to be what the engine makes
of these calls on x86-64, constants included, in memory that may be both written and executed.
Other code, other builds and other hosts keep their calls, with the same counts. The code of a
block is the engine's to throw away; what it translates again has its calls again.
"""

from pathlib import Path

import cython

from vmm.core.code.blocks import BlockMeter
from vmm.core.saved import Fields

# Words of BlockMeter.hot that translated code needs, beside the count and the slot.
VCPU = cython.declare(cython.uint, 2)
LATE = cython.declare(cython.uint, 3)
SLOT = cython.declare(cython.uint, 1)

BYTE = cython.declare(cython.ulonglong, 0xFF)
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)

# How a constant is loaded: mov register, imm64 or lea register, [rip + displacement].
MOV_BYTES = cython.declare(cython.uint, 10)
LEA_BYTES = cython.declare(cython.uint, 7)
RCX = cython.declare(cython.uint, 1)
RDI = cython.declare(cython.uint, 7)
NEAR_CALL = cython.declare(cython.uint, 5)
FAR_CALL = cython.declare(cython.uint, 6)
PLAIN_BYTES = cython.declare(cython.uint, 29)
ROM_BYTES = cython.declare(cython.uint, 33)
NOP = cython.declare(cython.uint, 0x90)
# The largest count that the shorter subtraction takes.
MOST_IN_ROM = cython.declare(cython.ulonglong, 127)
COUNT = cython.declare(cython.ulonglong, 0xFFFF)
# A block's role.
IN_ROM = cython.declare(cython.ulonglong, 1)
# No less than both calls together.
LONGEST = cython.declare(cython.uint, 64)


@cython.final
@cython.cclass
class InlineCounter:
    """Replaces the calls in the translated blocks of one CPU."""

    SAVED = Fields(wiring="meter", host="wanted placed callback question data low high")

    def __init__(self, meter: BlockMeter):
        self.meter = meter
        self.wanted = False
        self.callback = self.question = self.data = 0
        self.low = self.high = 0
        self.placed = 0

    def prepare(self, callback, late, question, data):
        """Begin to replace calls.

        Takes addresses: of the callback at each block, of what a late block calls, of the
        function that asks whether to stop, and of the vCPU.
        """
        self.callback = callback
        self.question = question
        self.data = data
        self.meter.hot[VCPU] = data
        self.meter.hot[LATE] = late
        self.wanted = True

    def put(self, at: cython.size_t, engine: cython.size_t) -> cython.void:
        """The block that was entered last has called, and `at` is where it goes on."""
        if at < self.low + LONGEST or at + LONGEST > self.high:
            with cython.gil:
                self.find(at)
            if not self.wanted:
                return
        code: cython.p_uchar = cython.cast(cython.p_uchar, at)
        slot: cython.uint = cython.cast(cython.uint, self.meter.hot[SLOT])
        key: cython.ulonglong = self.meter.table.blocks[2 * slot]
        facts: cython.ulonglong = self.meter.table.blocks[2 * slot + 1]
        call: cython.uint = self.call_of(at, self.callback, True)
        if call == 0:
            return
        # mov rdi, engine; mov esi, address; mov edx, size; mov rcx, vCPU
        start: cython.p_uchar = code - call
        length: cython.uint = self.constant_before(start, RCX, self.data)
        if length == 0:
            return
        start -= length + 10
        length = self.constant_before(start, RDI, engine)
        if length == 0 or not (
            self.holds(start, 0xBE, 1)
            and self.holds(start + 1, key & LOW_32, 4)
            and self.holds(start + 5, 0xBA, 1)
            and self.holds(start + 6, key >> 32, 4)
        ):
            return
        start -= length
        behind: cython.uint = cython.cast(cython.uint, code - start)
        if (facts >> 16) & IN_ROM and (behind < ROM_BYTES or facts & COUNT > MOST_IN_ROM):
            return
        # mov rdi, engine; xor esi, esi
        length = self.constant(code, RDI, engine)
        if length and self.holds(code + length, 0xF633, 2):
            call = self.call_of(at + length + 2, self.question, False)
            if call:
                behind += length + 2 + call
        self.write(start, 0xBF48, 2)
        self.write(start + 2, self.meter.hot_address, 8)
        if (facts >> 16) & IN_ROM:
            length = self.write_rom(start + 10, slot, facts & COUNT, behind)
        else:
            length = self.write_plain(start + 10, slot, facts & COUNT, behind)
        start += 10 + length
        while start < code:
            start[0] = NOP
            start += 1
        self.placed += 1

    def write_plain(
        self,
        start: cython.p_uchar,
        slot: cython.uint,
        count: cython.ulonglong,
        behind: cython.uint,
    ) -> cython.uint:
        """The first sequence above, from its subtraction on; answers its length."""
        self.write(start, 0x2F8148, 3)
        self.write(start + 3, count, 4)
        self.write(start + 7, 0x0847C7, 3)
        self.write(start + 10, slot, 4)
        self.write(start + 14, 0x7F, 1)
        self.write(start + 15, behind - 26, 1)
        self.write(start + 16, 0x1857FF, 3)
        return PLAIN_BYTES - 10

    def write_rom(
        self,
        start: cython.p_uchar,
        slot: cython.uint,
        count: cython.ulonglong,
        behind: cython.uint,
    ) -> cython.uint:
        """The second one."""
        self.write(start, 0x2F8348, 3)
        self.write(start + 3, count, 1)
        self.write(start + 4, 0x0847C7, 3)
        self.write(start + 7, slot, 4)
        self.write(start + 11, 0x077E, 2)
        self.write(start + 13, 0x20478348, 4)
        self.write(start + 17, count, 1)
        self.write(start + 18, 0xEB, 1)
        self.write(start + 19, behind - 30, 1)
        self.write(start + 20, 0x1857FF, 3)
        return ROM_BYTES - 10

    def call_of(
        self, at: cython.size_t, function: cython.size_t, before: cython.bint
    ) -> cython.uint:
        """The length of the call of a function that ends at an address or starts there.

        0 if there is none.
        """
        code: cython.p_uchar = cython.cast(cython.p_uchar, at)
        end: cython.size_t = at
        if before:
            code -= FAR_CALL
        else:
            end += FAR_CALL
        # call [rip + displacement], to a constant behind the code
        if code[0] == 0xFF and code[1] == 0x15:
            place: cython.size_t = end + self.displacement(code + 2)
            if (
                place >= self.low
                and place + 8 <= self.high
                and self.holds(cython.cast(cython.p_uchar, place), function, 8)
            ):
                return FAR_CALL
        if before:
            code += 1
        else:
            end -= 1
        # call displacement
        if code[0] == 0xE8 and end + self.displacement(code + 1) == function:
            return NEAR_CALL
        return 0

    def displacement(self, code: cython.p_uchar) -> cython.size_t:
        """A signed displacement of 32 bits, to be added modulo 2**64."""
        value: cython.uint = code[0] | (code[1] << 8) | (code[2] << 16)
        value |= cython.cast(cython.uint, code[3]) << 24
        return cython.cast(
            cython.size_t, cython.cast(cython.longlong, cython.cast(cython.int, value))
        )

    def constant(
        self, code: cython.p_uchar, number: cython.uint, value: cython.ulonglong
    ) -> cython.uint:
        """The length of the instruction at `code` that loads a register with a value; or 0."""
        if self.holds(code, 0xB848 | (number << 8), 2) and self.holds(code + 2, value, 8):
            return MOV_BYTES
        # lea register, [rip + displacement], for what is near
        here: cython.size_t = cython.cast(cython.size_t, code) + LEA_BYTES
        if (
            self.holds(code, 0x058D48 | (number << 19), 3)
            and here + self.displacement(code + 3) == value
        ):
            return LEA_BYTES
        return 0

    def constant_before(
        self, code: cython.p_uchar, number: cython.uint, value: cython.ulonglong
    ) -> cython.uint:
        """As `constant`, of the instruction that ends there."""
        if self.constant(code - MOV_BYTES, number, value) == MOV_BYTES:
            return MOV_BYTES
        if self.constant(code - LEA_BYTES, number, value) == LEA_BYTES:
            return LEA_BYTES
        return 0

    def holds(
        self, code: cython.p_uchar, value: cython.ulonglong, size: cython.uint
    ) -> cython.bint:
        """Do so many bytes of code hold a value?"""
        i: cython.uint = 0
        while i < size and code[i] == (value >> (8 * i)) & BYTE:
            i += 1
        return i == size

    def write(
        self, code: cython.p_uchar, value: cython.ulonglong, size: cython.uint
    ) -> cython.void:
        """Put a value into so many bytes of code."""
        i: cython.uint
        for i in range(size):
            code[i] = cython.cast(cython.uchar, (value >> (8 * i)) & BYTE)

    def find(self, at: cython.size_t):
        """Where the engine keeps translated code; without such a place nothing is replaced."""
        self.wanted = False
        # As the kernel lists it: start-end, rights, and what does not matter here.
        with Path("/proc/self/maps").open(encoding="ascii", errors="replace") as maps:
            for line in maps:
                extent, rights, *_ = line.split(maxsplit=2)
                low, high = (int(part, 16) for part in extent.split("-"))
                if low + LONGEST <= at <= high - LONGEST and rights.startswith("rwx"):
                    self.low, self.high = low, high
                    self.wanted = True
