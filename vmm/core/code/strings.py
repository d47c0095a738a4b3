"""Repeated string instructions, many iterations at a time.

The engine enters a block of its own for each iteration of REP MOVS or REP STOS, and
most blocks that a kernel enters are such: a page is cleared or copied in 1,024 of
them. Before such a block is entered, all iterations but the last that stay within a
page and before the next deadline are carried out here: same memory, same registers, same
number of instructions. What needs a closer look is left to the engine.
"""

import cython

from vmm.core.cpu.cpustate import CpuState
from vmm.core.memory import GuestMemory
from vmm.core.mmu.shadow import ShadowMmu
from vmm.core.saved import Fields

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
FRAME_MASK = cython.declare(cython.ulonglong, 0xFFFFF000)
PRESENT = cython.declare(cython.ulonglong, 0x01)
PRESENT_WRITABLE = cython.declare(cython.ulonglong, 0x03)
USER = cython.declare(cython.ulonglong, 0x04)

EAX = cython.declare(cython.uint, 0)
ECX = cython.declare(cython.uint, 1)
ESI = cython.declare(cython.uint, 6)
EDI = cython.declare(cython.uint, 7)

# Words of the CPU state.
DIRECTION = cython.declare(cython.uint, 43)
HFLAGS = cython.declare(cython.uint, 44)
HF_CPL = cython.declare(cython.uint, 0x3)
# Segments that are flat and 32 bits wide, and no single-stepping.
HF_LOOKED_AT = cython.declare(cython.uint, 0x150)
HF_EXPECTED = cython.declare(cython.uint, 0x010)
FORWARD = cython.declare(cython.uint, 1)

# Kinds, as `string_kind` answers them.
NONE = cython.declare(cython.uint, 0)
STORE_BYTES = cython.declare(cython.uint, 0x10)
STORE_DWORDS = cython.declare(cython.uint, 0x20)
MOVE_BYTES = cython.declare(cython.uint, 0x50)
MOVE_DWORDS = cython.declare(cython.uint, 0x60)
MOVES = cython.declare(cython.uint, 0x40)
DWORDS = cython.declare(cython.uint, 0x20)

REP = cython.declare(cython.uint, 0xF3)


def string_kind(prefix: cython.uint, opcode: cython.uint) -> cython.uint:
    """What two bytes of code repeat, if they are a whole instruction."""
    if prefix != REP:
        return NONE
    if opcode == 0xA4:
        return MOVE_BYTES
    if opcode == 0xA5:
        return MOVE_DWORDS
    if opcode == 0xAA:
        return STORE_BYTES
    if opcode == 0xAB:
        return STORE_DWORDS
    return NONE


@cython.final
@cython.cclass
class StringSweep:
    """Carries out repeated string instructions for one CPU."""

    SAVED = Fields(
        wiring="cpu memory shadow pages others",
    )

    def __init__(self, cpu: CpuState, memory: GuestMemory, shadow: ShadowMmu):
        self.cpu = cpu
        self.memory = memory
        self.shadow = shadow
        self.pages = shadow.pages
        self.others = len(shadow.pages.cpus) > 1

    def sweep(self, address: cython.uint, kind: cython.uint, room: cython.ulonglong) -> cython.uint:
        """Carry out at most `room` iterations, and never the last; answers how many.

        The instruction was of this `kind` when the block at `address` was met first.
        """
        hflags: cython.uint = self.cpu.words[HFLAGS]
        left: cython.uint = cython.cast(cython.uint, self.cpu.quads[ECX] & LOW_32)
        if (
            left < 2
            or (hflags & HF_LOOKED_AT) != HF_EXPECTED
            or self.cpu.words[DIRECTION] != FORWARD
        ):
            return 0
        user: cython.bint = (hflags & HF_CPL) == 3
        if not self.is_still(address, kind, user):
            return 0
        shift: cython.uint = 2 if kind & DWORDS else 0
        to: cython.uint = cython.cast(cython.uint, self.cpu.quads[EDI] & LOW_32)
        count: cython.uint = min(left - 1, (0x1000 - (to & 0xFFF)) >> shift)
        origin: cython.uint = 0
        if kind & MOVES:
            origin = cython.cast(cython.uint, self.cpu.quads[ESI] & LOW_32)
            count = min(count, (0x1000 - (origin & 0xFFF)) >> shift)
        if count > room:
            count = cython.cast(cython.uint, room)
        target: cython.longlong = self.physical(to, True, user)
        if count == 0 or target < 0:
            return 0
        if kind & MOVES:
            source: cython.longlong = self.physical(origin, False, user)
            if source < 0 or not self.move(
                cython.cast(cython.uint, source), cython.cast(cython.uint, target), count, shift
            ):
                return 0
            self.cpu.quads[ESI] = (origin + (count << shift)) & LOW_32
        elif not self.store(
            cython.cast(cython.uint, target),
            cython.cast(cython.uint, self.cpu.quads[EAX] & LOW_32),
            count,
            shift,
        ):
            return 0
        self.cpu.quads[EDI] = (to + (count << shift)) & LOW_32
        self.cpu.quads[ECX] = left - count
        return count

    def is_still(self, address: cython.uint, kind: cython.uint, user: cython.bint) -> cython.bint:
        """Does this code repeat what it did? It may have been changed, or be another program's."""
        code: cython.longlong = self.physical(address, False, user)
        if code < 0 or code & 0xFFF == 0xFFF:
            return False
        return string_kind(self.memory.bytes[code], self.memory.bytes[code + 1]) == kind

    def physical(
        self, address: cython.uint, write: cython.bint, user: cython.bint
    ) -> cython.longlong:
        """Where in RAM the processor finds an address, or -1 if it would have to ask."""
        wanted: cython.ulonglong = PRESENT_WRITABLE if write else PRESENT
        if user:
            wanted |= USER
        entry: cython.ulonglong = self.pages.entries[4 * self.shadow.current + (address >> 30)]
        if not entry & PRESENT:
            return -1
        entry = self.pages.entries[
            (cython.cast(cython.uint, entry & FRAME_MASK) - self.pages.pool_address) // 8
            + ((address >> 21) & 511)
        ]
        if (entry & wanted) != wanted:
            return -1
        entry = self.pages.entries[
            (cython.cast(cython.uint, entry & FRAME_MASK) - self.pages.pool_address) // 8
            + ((address >> 12) & 511)
        ]
        frame: cython.uint = cython.cast(cython.uint, (entry & FRAME_MASK) >> 12)
        if (entry & wanted) != wanted or frame >= self.memory.host_count:
            return -1
        if write and self.pages.translated[frame]:
            if self.others:
                # They have translations of their own.
                return -1
            self.cpu.forget_code(frame)
        return (cython.cast(cython.longlong, frame) << 12) | (address & 0xFFF)

    def move(
        self,
        source: cython.uint,
        target: cython.uint,
        count: cython.uint,
        shift: cython.uint,
    ) -> cython.bint:
        """Copy upwards, element by element; false for what only the engine does right."""
        i: cython.uint
        if shift and not (source | target) & 3:
            source >>= 2
            target >>= 2
            for i in range(count):
                self.memory.words[target + i] = self.memory.words[source + i]
            return True
        # Bytes say the same unless a dword overlaps the one that it is copied to.
        if shift and source < target < source + 4:
            return False
        for i in range(count << shift):
            self.memory.bytes[target + i] = self.memory.bytes[source + i]
        return True

    def store(
        self, target: cython.uint, value: cython.uint, count: cython.uint, shift: cython.uint
    ) -> cython.bint:
        """Fill upwards; false for what only the engine does right."""
        i: cython.uint
        if not shift:
            for i in range(target, target + count):
                self.memory.bytes[i] = value & 0xFF
            return True
        if target & 3:
            return False
        target >>= 2
        for i in range(target, target + count):
            self.memory.words[i] = value
        return True
