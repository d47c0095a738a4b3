"""The blocks of code that are known, and what is known of each.

That fits into two quadwords, for a block is looked up whenever the guest enters one: address
and size, by which it is found, and its *facts* - instructions, role, call, and where the offsets
of its instructions start.

Other code may come to lie at the same address, and be as long: what was changed, what another
address space has there. So a block is known by its code as well, of which it has a *sign*, a
hash. That is compared where the block is not in the *place* where it was seen last. The place
says which translation it is: for compiled code where the engine has it, for interpreted code a
number that the engine was made to put into it.
"""

from array import array

import cython

from vmm.core.code.flagkeeper import FlagKeeper
from vmm.core.code.lengths import LengthDecoder
from vmm.core.code.romcalls import RomCalls
from vmm.core.code.strings import string_kind
from vmm.core.cpu.cpustate import CpuState
from vmm.core.memory import GuestMemory
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadow import ShadowMmu
from vmm.core.saved import ARRAY, U32, BadState, Fields

SLOTS = cython.declare(cython.uint, 1 << 16)
SLOTS_LIMIT = cython.declare(cython.uint, 3 << 14)
# A slot behind the last one, with a block of no size.
NO_BLOCK = cython.declare(cython.uint, 1 << 16)
# The place of a block that was not seen yet.
UNSEEN = cython.declare(cython.size_t, 0)
# Blocks of the same address and size, which are all passed in a search.
MOST_OTHERS = cython.declare(cython.uint, 1 << 9)
OFFSETS = cython.declare(cython.uint, 1 << 20)
LONGEST_BLOCK = cython.declare(cython.uint, 1 << 12)
CODE_BYTES = cython.declare(cython.uint, 1 << 16)

# Roles. A block that starts with a repeated string instruction has that one's kind.
PLAIN = cython.declare(cython.uint, 0)
IN_ROM = cython.declare(cython.uint, 1)
ASKS_RELOC = cython.declare(cython.uint, 2)
# The block accesses a port somewhere.
PORTS = cython.declare(cython.uint, 8)
# A call of get_reloc has returned there once: each entry is looked at from then on.
RETURN = cython.declare(cython.uint, 128)

COUNT_MASK = cython.declare(cython.ulonglong, 0xFFFF)
ROLE_SHIFT = cython.declare(cython.uint, 16)
CALL_SHIFT = cython.declare(cython.uint, 24)
OFFSETS_SHIFT = cython.declare(cython.uint, 32)

# Rows of `RomCalls`.
ROW_GET_RELOC = cython.declare(cython.int, 129)
ROWS = 131

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
LOW_64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)

# FNV-1a of 64 bits (RFC 9923).
FNV_START = cython.declare(cython.ulonglong, 0xCBF29CE484222325)
FNV_PRIME = cython.declare(cython.ulonglong, 0x100000001B3)


@cython.final
@cython.cclass
class BlockTable:
    """The blocks that one CPU has entered: an open hash table in `blocks`, two words a slot.

    Facts are, from bit 0 on, 16 bits of instructions, 8 of role, 8 of call (the row in `RomCalls`
    and one), and 32 of the index in `offsets`.
    """

    SAVED = Fields(
        {ARRAY: "blocks signs offsets", U32: "used offsets_used"},
        wiring="cpu memory paging shadow rom decoder keeper most",
        transient="code places",
    )

    def __init__(
        self,
        cpu: CpuState,
        memory: GuestMemory,
        paging: GuestPaging,
        shadow: ShadowMmu,
        rom: RomCalls,
    ):
        self.cpu = cpu
        self.memory = memory
        self.paging = paging
        self.shadow = shadow
        self.rom = rom
        self.code = bytearray(CODE_BYTES)
        self.decoder = LengthDecoder(self.code)
        self.keeper = FlagKeeper(cpu, self.code)
        self.blocks = array("Q", bytes(16 * (SLOTS + 1)))
        self.signs = array("Q", bytes(8 * (SLOTS + 1)))
        self.places = array("Q", bytes(8 * (SLOTS + 1)))
        self.offsets = array("H", bytes(2 * OFFSETS))
        self.used = self.offsets_used = 0
        self.most = SLOTS_LIMIT

    def _check_saved(self):
        """A table with room, whose blocks have instructions, offsets and calls that there are."""
        blocks = memoryview(self.blocks)
        used = 0
        for slot in range(SLOTS):
            if blocks[2 * slot]:
                used += 1
                facts = blocks[2 * slot + 1]
                count = facts & 0xFFFF
                if (
                    not count
                    or (facts >> OFFSETS_SHIFT) + count > self.offsets_used
                    or (facts >> CALL_SHIFT) & 0xFF > ROWS
                ):
                    raise BadState(f"block {blocks[2 * slot]:#x} with {facts:#x}")
        if used != self.used or used > SLOTS_LIMIT or self.offsets_used > OFFSETS:
            raise BadState(f"{used} blocks, {self.used} said, {self.offsets_used} offsets")

    # ---- looked up at every block

    def first_slot(self, address: cython.uint, size: cython.uint) -> cython.uint:
        """Where the search for a block begins."""
        # The upper half of a product with a prime near the golden ratio of 2**31.
        slot: cython.uint = cython.cast(
            cython.uint, ((address + (size << 20)) * 0x4F1BBCDD) & LOW_32
        )
        return slot >> 16

    def slot_of(self, address: cython.uint, size: cython.uint, place: cython.size_t) -> cython.uint:
        """The slot of a block whose translation was seen there; NO_BLOCK if it was not."""
        key: cython.ulonglong = address | (cython.cast(cython.ulonglong, size) << 32)
        slot: cython.uint = self.first_slot(address, size)
        while self.blocks[2 * slot] != key or self.places[slot] != place:
            if not self.blocks[2 * slot]:
                return NO_BLOCK
            slot = (slot + 1) & 0xFFFF
        return slot

    # ---- and what else is asked

    def recognise(
        self, address: cython.uint, size: cython.uint, place: cython.size_t
    ) -> cython.uint:
        """The same for a translation that was not seen yet; NO_BLOCK if there is no room for more.

        What the code's flags need is wanted of `keeper` then.
        """
        end: cython.uint = self.fetch(address, size)
        offset: cython.Py_ssize_t = self.rom.offset_of(address)
        sign: cython.ulonglong = self.sign(offset, end)
        slot: cython.uint = self.find(address, size, sign)
        if slot == NO_BLOCK:
            return NO_BLOCK
        if not self.blocks[2 * slot]:
            if self.used >= self.most or self.offsets_used + LONGEST_BLOCK >= OFFSETS:
                return NO_BLOCK
            self.blocks[2 * slot + 1] = self.learn(address, offset, end)
            self.blocks[2 * slot] = address | (cython.cast(cython.ulonglong, size) << 32)
            self.signs[slot] = sign
            self.used += 1
        self.places[slot] = place
        return slot

    def find(self, address: cython.uint, size: cython.uint, sign: cython.ulonglong) -> cython.uint:
        """The slot of the block with this sign, or the empty one where it belongs.

        NO_BLOCK where there are too many of other signs, as of code that changes all the time.
        """
        key: cython.ulonglong = address | (cython.cast(cython.ulonglong, size) << 32)
        slot: cython.uint = self.first_slot(address, size)
        others: cython.uint = 0
        while self.blocks[2 * slot]:
            if self.blocks[2 * slot] == key:
                if self.signs[slot] == sign:
                    return slot
                others += 1
                if others == MOST_OTHERS:
                    return NO_BLOCK
            slot = (slot + 1) & 0xFFFF
        return slot

    def fetch(self, address: cython.uint, size: cython.uint) -> cython.uint:
        """Read code into the buffer as the engine has; answers how much of it is mapped."""
        done: cython.uint = 0
        count: cython.uint = 1
        size = min(size, CODE_BYTES)
        while done < size and count:
            at: cython.uint = (address + done) & LOW_32
            count = self.shadow.fetch(at, self.code, done, size - done)
            done += count
        return done

    def sign(self, offset: cython.Py_ssize_t, end: cython.uint) -> cython.ulonglong:
        """A hash of the code in the buffer, up to `end`, and of what else its facts depend on.

        `offset` is where it is in the ROM's image, as `RomCalls.offset_of` has it.
        """
        i: cython.uint
        sign: cython.ulonglong = FNV_START
        for i in range(end):
            sign = ((sign ^ self.code[i]) * FNV_PRIME) & LOW_64
        about: cython.ulonglong = cython.cast(cython.ulonglong, offset + 1)
        about = (about << 1) | (1 if self.cpu.code_is_wide() else 0)
        return ((sign ^ about) * FNV_PRIME) & LOW_64

    def learn(
        self, address: cython.uint, offset: cython.Py_ssize_t, end: cython.uint
    ) -> cython.ulonglong:
        """Decode the block at `address`, which the buffer holds up to `end`; answers its facts."""
        wide: cython.bint = self.cpu.code_is_wide()
        first: cython.uint = self.offsets_used
        role: cython.uint = PLAIN
        at: cython.uint = 0
        self.keeper.begin()
        while at < end or at == 0:
            self.offsets[self.offsets_used] = at
            self.offsets_used += 1
            if at >= end:
                break
            if self.decoder.accesses_port(at, end):
                role = PORTS
            self.keeper.look(at, end, address + at)
            at += self.decoder.length(at, end, wide)
        row: cython.int = -1
        if offset >= 0:
            row = self.rom.row_at(address, offset)
            role = ASKS_RELOC if row == ROW_GET_RELOC else IN_ROM
        elif end == 2 and role == PLAIN:
            role = string_kind(self.code[0], self.code[1])
        if address in self.rom.returns:
            role |= RETURN
        facts: cython.ulonglong = self.offsets_used - first
        facts |= cython.cast(cython.ulonglong, role) << ROLE_SHIFT
        facts |= cython.cast(cython.ulonglong, row + 1) << CALL_SHIFT
        facts |= cython.cast(cython.ulonglong, first) << OFFSETS_SHIFT
        return facts

    def mark_return(self, address: cython.uint) -> cython.int:
        """A call of get_reloc returns there: the block must not pass unseen from now on."""
        if address in self.rom.returns:
            return 0
        self.rom.returns.add(address)
        i: cython.uint
        for i in range(SLOTS):
            if self.blocks[2 * i] & LOW_32 == address:
                self.blocks[2 * i + 1] |= RETURN << ROLE_SHIFT
        # What is translated may count by itself.
        if self.paging.walk(address) and self.memory.is_ram(self.paging.physical >> 12):
            self.cpu.forget_code(self.memory.host(self.paging.physical >> 12))
        return 0

    def behind(self, slot: cython.uint, eip: cython.uint) -> cython.uint:
        """How many instructions of a block lie at the linear address `eip` or behind it."""
        key: cython.ulonglong = self.blocks[2 * slot]
        address: cython.uint = cython.cast(cython.uint, key & LOW_32)
        within: cython.uint = eip - address
        if eip < address or within >= key >> 32:
            return 0
        facts: cython.ulonglong = self.blocks[2 * slot + 1]
        first: cython.uint = cython.cast(cython.uint, facts >> OFFSETS_SHIFT)
        executed: cython.uint = 0
        count: cython.uint = cython.cast(cython.uint, facts & COUNT_MASK)
        while executed < count and self.offsets[first + executed] < within:
            executed += 1
        return count - executed

    def last_length(self, slot: cython.uint) -> cython.uint:
        """The length in bytes of the instruction that ends a block; 0 for NO_BLOCK."""
        facts: cython.ulonglong = self.blocks[2 * slot + 1]
        if not facts:
            return 0
        last: cython.ulonglong = (facts >> OFFSETS_SHIFT) + (facts & COUNT_MASK) - 1
        return cython.cast(cython.uint, self.blocks[2 * slot] >> 32) - self.offsets[last]

    def forget(self):
        """Start afresh; translated code must go first."""
        i: cython.uint
        for i in range(SLOTS):
            self.blocks[2 * i] = self.blocks[2 * i + 1] = self.signs[i] = 0
            self.places[i] = UNSEEN
        self.used = self.offsets_used = 0
