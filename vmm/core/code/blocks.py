"""Count guest instructions, block by block, and know which of them the ROM ran.

The engine tells when it enters a translated block. How many instructions a block
holds is decoded once and remembered (`vmm.core.code.blocktable`); when an exit leaves a block in
the middle, the rest is taken back. So the count is exact, except that a repeated string
instruction counts once an iteration.

Counting is counting down: `hot[LEFT]` is what may pass before somebody has to look, and the
count is what it would be at zero, less that. So one subtraction both counts a block and says
whether time is up, and the engine's own code can do it (`vmm.core.code.inline`).
"""

from array import array

import cython

from vmm.core.code.blocktable import BlockTable
from vmm.core.code.romcalls import RomCalls
from vmm.core.saved import CUSTOM, FLAG, PART, U32, VIRTUAL_TIME, Fields

# The slot of no block: none was entered, or it was left.
NO_BLOCK = cython.declare(cython.uint, 1 << 16)

# Roles of blocks, as `vmm.core.code.blocktable` has them.
PLAIN = cython.declare(cython.uint, 0)
IN_ROM = cython.declare(cython.uint, 1)
ASKS_RELOC = cython.declare(cython.uint, 2)
ROM_ROLES = cython.declare(cython.uint, 3)

# What changes at every block. Translated code has this layout in it (`vmm.core.code.inline`).
LEFT = cython.declare(cython.uint, 0)
SLOT = cython.declare(cython.uint, 1)
# Instructions of the ROM.
ROM = cython.declare(cython.uint, 4)
HOT_WORDS = cython.declare(cython.uint, 8)
MOST_LEFT = cython.declare(cython.ulonglong, 1 << 62)

# What `enter` answers beside the kind of a string instruction, and of an access to a port.
NOTHING = cython.declare(cython.uint, 0)
SPECIAL = cython.declare(cython.uint, 1)

# What `special` answers.
KNOWN = cython.declare(cython.int, 0)
NO_ROOM = cython.declare(cython.int, 1)
TO_WATCH = cython.declare(cython.int, 2)

# `enter` has these as literals, which the compiler folds: it runs at every block.
COUNT_MASK = cython.declare(cython.ulonglong, 0xFFFF)
ROLE_SHIFT = cython.declare(cython.uint, 16)
CALL_SHIFT = cython.declare(cython.uint, 24)
BYTE = cython.declare(cython.ulonglong, 0xFF)
PAGE_OFFSET = cython.declare(cython.ulonglong, 0xFFF)
PAGE_SIZE = cython.declare(cython.ulonglong, 0x1000)
# Instructions; the engine cuts a block that makes 4,000 operations of its own.
LONG = cython.declare(cython.ulonglong, 32)

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)

# Virtual time: one instruction is one nanosecond.
NS_PER_INSTRUCTION = cython.declare(cython.ulonglong, 1)


@cython.final
@cython.cclass
class BlockMeter:
    """The instruction count of one CPU, and the machine's clock while that CPU runs."""

    SAVED = Fields(
        {
            PART: "rom table",
            U32: "left_role",
            FLAG: "left_entry unknown",
            VIRTUAL_TIME: "charged_ns elsewhere_ns",
            CUSTOM: "hot",
        },
        wiring="hot_address",
        derived="ceiling",
        transient="new_size new_place left_slot left_rest",
    )

    def __init__(self, table: BlockTable, rom: RomCalls):
        self.table = table
        self.rom = rom
        hot = array("q", bytes(8 * HOT_WORDS))
        self.hot = hot
        self.hot_address = hot.buffer_info()[0]
        self.hot[LEFT] = 0
        self.hot[SLOT] = NO_BLOCK
        self.ceiling = 0
        self.new_size = 0
        self.new_place = 0
        self.left_role = PLAIN
        self.left_entry = self.unknown = False
        self.left_slot = NO_BLOCK
        self.left_rest = 0
        self.charged_ns = 0
        self.elsewhere_ns = 0

    @property
    def instructions(self):
        """The instructions that the CPU has completed."""
        return self.count()

    @property
    def rom_instructions(self):
        """How many of them the ROM has."""
        return int(self.hot[ROM])

    def count(self) -> cython.ulonglong:
        """The instructions that the CPU has completed."""
        return self.ceiling - self.hot[LEFT]

    def arm(
        self, limit: cython.ulonglong, deadline: cython.ulonglong, look: cython.bint
    ) -> cython.void:
        """Let blocks pass while the count is below `limit` and time before `deadline`.

        With `look` none passes unseen.
        """
        count: cython.ulonglong = self.count()
        spent: cython.ulonglong = self.charged_ns + self.elsewhere_ns
        end: cython.ulonglong = deadline - spent if deadline > spent else 0
        left: cython.longlong = 0
        end = min(end, limit)
        if end > count and not look:
            left = min(end - count, MOST_LEFT)
        self.hot[LEFT] = left
        self.ceiling = count + left

    def _save_hot(self):
        """For `vmm.core.saved`: the instructions so far, the latest block, those of the ROM."""
        return [int(self.count()), int(self.hot[SLOT]), int(self.hot[ROM])]

    def _load_hot(self, value):
        """The same; the next block is looked at."""
        instructions, slot, rom = value
        if not 0 <= rom <= instructions < 1 << 60 or not 0 <= slot <= NO_BLOCK:
            raise ValueError(f"{instructions} instructions, block {slot}")
        self.hot[LEFT] = 0
        self.hot[SLOT] = slot
        self.hot[ROM] = rom
        self.ceiling = instructions

    # ---- time

    def now(self) -> cython.ulonglong:
        """The machine's virtual time in nanoseconds, while this CPU is the one that runs."""
        return self.own() + self.elsewhere_ns

    def own(self) -> cython.ulonglong:
        """How long this CPU has run, in nanoseconds of virtual time."""
        return self.count() * NS_PER_INSTRUCTION + self.charged_ns

    def now_at(self, eip: cython.uint) -> cython.ulonglong:
        """Virtual time before the instruction at `eip`, also where its block is counted whole."""
        behind: cython.uint = self.table.behind(self.current_slot(), eip)
        return self.now() - behind * NS_PER_INSTRUCTION

    def take_over(self, now):
        """Run from now on, after others have brought virtual time to `now`."""
        self.elsewhere_ns = now - self.own()

    # ---- a block is entered

    def enter(self, address: cython.uint, size: cython.uint, place: cython.size_t) -> cython.uint:
        """Count a block, of the translation at `place`.

        Answers SPECIAL when `special` must look at it as well, and the kind of the
        string instruction that it repeats, if it does.
        """
        slot: cython.uint = self.table.slot_of(address, size, place)
        if slot == NO_BLOCK:
            self.new_size = size
            self.new_place = place
            self.unknown = True
            return SPECIAL
        return self.enter_slot(slot, address)

    def enter_slot(self, slot: cython.uint, address: cython.uint) -> cython.uint:
        """Count the block in a slot; answers as `enter`."""
        facts: cython.ulonglong = self.table.blocks[2 * slot + 1]
        self.hot[SLOT] = slot
        self.hot[LEFT] -= facts & 0xFFFF
        role: cython.uint = cython.cast(cython.uint, (facts >> 16) & 0xFF)
        if role & 3:
            self.enter_rom(facts)
            if role & ROM_ROLES == ASKS_RELOC:
                return SPECIAL
            role = NOTHING
        role &= 127
        return SPECIAL if address == self.rom.watched and address != 0 else role

    def enter_rom(self, facts: cython.ulonglong) -> cython.void:
        """Count a block as the ROM's, and perhaps as the start of a call."""
        call: cython.uint = cython.cast(cython.uint, (facts >> 24) & 0xFF)
        if call:
            began: cython.ulonglong = self.count() - (facts & 0xFFFF)
            self.rom.enter(call - 1, self.current_slot(), began, self.hot[ROM])
        self.hot[ROM] += facts & 0xFFFF

    def special(self, address: cython.uint) -> cython.int:
        """Recognise a block, or learn it; follow the guest's questions to get_reloc.

        Answers NO_ROOM where the table has to be forgotten first, and TO_WATCH where the block has
        to be translated anew; then it has not counted the block.
        """
        if self.unknown:
            self.unknown = False
            slot: cython.uint = self.table.recognise(address, self.new_size, self.new_place)
            if slot == NO_BLOCK or self.table.keeper.wanted:
                self.hot[SLOT] = NO_BLOCK
                return NO_ROOM if slot == NO_BLOCK else TO_WATCH
            if self.enter_slot(slot, address) != SPECIAL:
                return KNOWN
        if address == self.rom.watched:
            self.rom.note_answer()
        if self.role() & ROM_ROLES == ASKS_RELOC:
            self.table.mark_return(self.rom.asks())
        return KNOWN

    def current_slot(self) -> cython.uint:
        """The slot of the block that was entered last, or NO_BLOCK."""
        return cython.cast(cython.uint, self.hot[SLOT] & 0x1FFFF)

    def role(self) -> cython.uint:
        """What the block that was entered last is."""
        facts: cython.ulonglong = self.table.blocks[2 * self.current_slot() + 1]
        return cython.cast(cython.uint, (facts >> ROLE_SHIFT) & BYTE)

    def kind(self) -> cython.uint:
        """What `enter` answers for the block that was entered last, if not SPECIAL."""
        facts: cython.ulonglong = self.table.blocks[2 * self.current_slot() + 1]
        role: cython.uint = cython.cast(cython.uint, (facts >> 16) & 0x7F)
        return NOTHING if role & 3 else role

    def take_back(self) -> cython.ulonglong:
        """The block that was entered last has counted itself: uncount it; answers its key."""
        slot: cython.uint = self.current_slot()
        self.hot[LEFT] += self.table.blocks[2 * slot + 1] & 0xFFFF
        return self.table.blocks[2 * slot]

    def last_length(self) -> cython.uint:
        """The length in bytes of the instruction that ends the block that was entered last.

        0 if that was left.
        """
        return self.table.last_length(self.current_slot())

    def forget(self):
        """Start the table of blocks afresh; translated code must go first."""
        self.table.forget()
        self.hot[SLOT] = NO_BLOCK

    # ---- and left in the middle

    def leave_at(self, eip: cython.uint) -> cython.int:
        """The block was left before the instruction at linear address `eip`.

        The rest is taken back.
        """
        slot: cython.uint = self.current_slot()
        key: cython.ulonglong = self.table.blocks[2 * slot]
        address: cython.uint = cython.cast(cython.uint, key & LOW_32)
        within: cython.uint = eip - address
        self.left_slot = NO_BLOCK
        if eip >= address and within < key >> 32:
            facts: cython.ulonglong = self.table.blocks[2 * slot + 1]
            rest: cython.uint = self.table.behind(slot, eip)
            self.left_slot = slot
            self.left_rest = rest
            self.hot[LEFT] += rest
            self.left_role = cython.cast(cython.uint, (facts >> ROLE_SHIFT) & ROM_ROLES)
            self.left_entry = False
            if self.left_role:
                self.hot[ROM] -= rest
                if rest == (facts & COUNT_MASK) and (facts >> CALL_SHIFT) & BYTE:
                    self.left_entry = self.rom.leave()
        self.hot[SLOT] = NO_BLOCK
        return 0

    def stay(self) -> cython.bint:
        """Count the rest of the block that was left last after all: the engine is still in it.

        False, and nothing done, where its rest has to be looked at as a block of its own, as
        `BlockEntry.block` would, where it goes on in another page, and where the engine may have
        cut it: translated from here, it would end elsewhere, and with it all that follows.
        """
        key: cython.ulonglong = self.table.blocks[2 * self.left_slot]
        facts: cython.ulonglong = self.table.blocks[2 * self.left_slot + 1]
        if (
            self.left_slot == NO_BLOCK
            or (key & PAGE_OFFSET) + (key >> 32) > PAGE_SIZE
            or (facts >> ROLE_SHIFT) & BYTE > IN_ROM
            or (facts & COUNT_MASK) >= LONG
            or self.hot[LEFT] <= self.left_rest
        ):
            return False
        self.hot[SLOT] = self.left_slot
        self.complete(self.left_rest)
        return True

    def retire(self) -> cython.int:
        """The instruction at which the block was left has been carried out after all."""
        self.complete(1)
        return 0

    def complete(self, count: cython.uint) -> cython.void:
        """Count instructions of the block that was left last, the first one among them."""
        self.hot[LEFT] -= count
        if self.left_role:
            self.hot[ROM] += count
            if self.left_entry:
                self.rom.enter_again()
                self.left_entry = False

    def pass_one(self) -> cython.int:
        """The instruction before which a block ended has been carried out, and not by the engine.

        It is none of the ROM's.
        """
        self.hot[LEFT] -= 1
        return 0

    def calls(self):
        """{row: (times entered, instructions)}, as `RomCalls` has rows."""
        self.rom.book(self.hot[ROM])
        return self.rom.rows()
