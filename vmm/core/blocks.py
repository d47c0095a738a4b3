"""Count guest instructions, block by block, and know which of them the ROM ran.

The engine tells when it enters a translated block. How many instructions a block
holds is decoded once and remembered; when an exit leaves a block in the middle, the
rest is taken back. So the count is exact, except that a repeated string instruction
counts once an iteration.

What is known of a block fits into two quadwords, for this is the one thing that happens
at every block that the guest enters: address and size, by which it is looked up, and
its *facts* - instructions, role, call, and where the offsets of its instructions start.
Other code may come to lie at the same address, and be as long: what was changed, what another
address space has there. So a block is known by its code as well, of which it has a *sign*, a
hash. That is compared where the block is not in the *place* where it was seen last. The place
says which translation it is: for compiled code where the engine has it, for interpreted code a
number that the engine was made to put into it.

Counting is counting down: `hot[LEFT]` is what may pass before somebody has to look, and the
count is what it would be at zero, less that. So one subtraction both counts a block and says
whether time is up, and the engine's own code can do it (`vmm.core.inline`).

The meter also watches the guest ask the ROM's get_reloc, and so learns where each
call starts without knowing anything of the ROM's insides.
"""

from array import array

import cython

from vmi.address import GuestVirtual
from vmi.header import GET_RELOC, VMI_INIT
from vmi.relocation import RelocationAnswer, RelocationKind
from vmm.core.cpustate import CpuState
from vmm.core.flagkeeper import FlagKeeper
from vmm.core.lengths import LengthDecoder
from vmm.core.memory import GuestMemory
from vmm.core.paging import GuestPaging
from vmm.core.saved import ARRAY, CUSTOM, FLAG, U32, U64, VIRTUAL_TIME, BadState, Fields
from vmm.core.shadow import ShadowMmu
from vmm.core.strings import string_kind

SLOTS = cython.declare(cython.uint, 1 << 16)
SLOTS_LIMIT = cython.declare(cython.uint, 3 << 14)
# A slot behind the last one, with a block of no size: none was entered, or it was left.
NO_BLOCK = cython.declare(cython.uint, 1 << 16)
# The place of a block that was not seen yet.
UNSEEN = cython.declare(cython.size_t, 0)
# What GuestMemory.host() answers where there is no RAM.
NO_HOST = cython.declare(cython.uint, 0xFFFFFFFF)
OFFSETS = cython.declare(cython.uint, 1 << 20)
LONGEST_BLOCK = cython.declare(cython.uint, 1 << 12)

# Roles. A block that starts with a repeated string instruction has that one's kind.
PLAIN = cython.declare(cython.uint, 0)
IN_ROM = cython.declare(cython.uint, 1)
ASKS_RELOC = cython.declare(cython.uint, 2)
ROM_ROLES = cython.declare(cython.uint, 3)
# The block accesses a port somewhere.
PORTS = cython.declare(cython.uint, 8)
# A call of get_reloc has returned there once: each entry is looked at from then on.
RETURN = cython.declare(cython.uint, 128)

# What changes at every block. Translated code has this layout in it (`vmm.core.inline`).
LEFT = cython.declare(cython.uint, 0)
SLOT = cython.declare(cython.uint, 1)
# Instructions of the ROM.
ROM = cython.declare(cython.uint, 4)
HOT_WORDS = cython.declare(cython.uint, 8)
MOST_LEFT = cython.declare(cython.ulonglong, 1 << 62)

# What `enter` answers beside the kind of a string instruction.
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
OFFSETS_SHIFT = cython.declare(cython.uint, 32)
BYTE = cython.declare(cython.ulonglong, 0xFF)
PAGE_OFFSET = cython.declare(cython.ulonglong, 0xFFF)
PAGE_SIZE = cython.declare(cython.ulonglong, 0x1000)
CODE_BYTES = cython.declare(cython.uint, 1 << 16)

EAX = cython.declare(cython.uint, 0)
EDX = cython.declare(cython.uint, 2)
ESP = cython.declare(cython.uint, 4)

# Rows of the call tables beyond the call numbers.
CALLS = cython.declare(cython.uint, 128)
ROW_INIT = cython.declare(cython.uint, 128)
ROW_GET_RELOC = cython.declare(cython.uint, 129)
ROW_OTHER = cython.declare(cython.uint, 130)
ROWS = cython.declare(cython.uint, 131)

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
LOW_64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)

# FNV-1a of 64 bits (RFC 9923).
FNV_START = cython.declare(cython.ulonglong, 0xCBF29CE484222325)
FNV_PRIME = cython.declare(cython.ulonglong, 0x100000001B3)

# Virtual time: one instruction is one nanosecond.
NS_PER_INSTRUCTION = cython.declare(cython.ulonglong, 1)


@cython.final
@cython.cclass
class BlockMeter:
    """The instruction count of one CPU, and the machine's clock while that CPU runs."""

    SAVED = Fields(
        {
            ARRAY: "blocks signs offsets call_count call_instructions",
            U32: "used offsets_used left_role watched asked rom_start rom_end in_call call_slot",
            U64: "call_began",
            FLAG: "left_entry counted_call unknown",
            VIRTUAL_TIME: "charged_ns elsewhere_ns booked",
            CUSTOM: "hot answers returns",
        },
        wiring="cpu memory paging shadow decoder keeper most hot_address",
        derived="ceiling",
        transient="code new_size new_place places left_slot left_rest",
    )

    def __init__(self, cpu: CpuState, memory: GuestMemory, paging: GuestPaging, shadow: ShadowMmu):
        self.cpu = cpu
        self.memory = memory
        self.paging = paging
        self.shadow = shadow
        self.code = bytearray(CODE_BYTES)
        self.decoder = LengthDecoder(self.code)
        self.keeper = FlagKeeper(cpu, self.code)
        self.blocks = array("Q", bytes(16 * (SLOTS + 1)))
        self.signs = array("Q", bytes(8 * (SLOTS + 1)))
        self.places = array("Q", [UNSEEN]) * (SLOTS + 1)
        self.offsets = array("H", bytes(2 * OFFSETS))
        self.used = self.offsets_used = 0
        self.most = SLOTS_LIMIT
        hot = array("q", bytes(8 * HOT_WORDS))
        self.hot = hot
        self.hot_address = hot.buffer_info()[0]
        self.hot[LEFT] = 0
        self.hot[SLOT] = NO_BLOCK
        self.ceiling = 0
        self.new_size = 0
        self.new_place = UNSEEN
        self.left_role = PLAIN
        self.left_entry = self.unknown = False
        self.left_slot = NO_BLOCK
        self.left_rest = 0
        self.counted_call = False
        self.call_slot = NO_BLOCK
        self.call_began = 0
        self.watched = 0
        self.asked = 0
        self.rom_start = self.rom_end = 0
        self.in_call = ROW_OTHER
        self.charged_ns = 0
        self.booked = 0
        self.elsewhere_ns = 0
        self.call_count = array("Q", bytes(8 * ROWS))
        self.call_instructions = array("Q", bytes(8 * ROWS))
        self.answers = {}
        self.returns = set()

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

    def _save_answers(self):
        """For `vmm.core.saved`: get_reloc's answers by call number."""
        return [
            [number, int(answer.kind), int(answer.address)]
            for number, answer in self.answers.items()
        ]

    def _load_answers(self, value):
        """The same."""
        self.answers = {}
        for number, kind, address in value:
            if not 0 <= number < CALLS or not 0 <= address <= LOW_32:
                raise ValueError(f"call {number} at {address:#x}")
            self.answers[number] = RelocationAnswer(RelocationKind(kind), GuestVirtual(address))

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

    def _save_returns(self):
        """For `vmm.core.saved`."""
        return sorted(self.returns)

    def _load_returns(self, value):
        """The same."""
        self.returns = {int(address) for address in value}

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
        if self.in_call >= ROWS:
            raise BadState(f"in call {self.in_call} of {ROWS}")

    def watch_rom(self, start, end):
        """The ROM image lies at guest-physical [start, end)."""
        self.rom_start = start
        self.rom_end = end

    def now(self) -> cython.ulonglong:
        """The machine's virtual time in nanoseconds, while this CPU is the one that runs."""
        return self.own() + self.elsewhere_ns

    def own(self) -> cython.ulonglong:
        """How long this CPU has run, in nanoseconds of virtual time."""
        return self.count() * NS_PER_INSTRUCTION + self.charged_ns

    def take_over(self, now):
        """Run from now on, after others have brought virtual time to `now`."""
        self.elsewhere_ns = now - self.own()

    def enter(self, address: cython.uint, size: cython.uint, place: cython.size_t) -> cython.uint:
        """Count a block, of the translation at `place`.

        Answers SPECIAL when `special` must look at it as well, and the kind of the
        string instruction that it repeats, if it does.
        """
        key: cython.ulonglong = address | (cython.cast(cython.ulonglong, size) << 32)
        slot: cython.uint = self.first_slot(address, size)
        while self.blocks[2 * slot] != key or self.places[slot] != place:
            if not self.blocks[2 * slot]:
                self.new_size = size
                self.new_place = place
                self.unknown = True
                return SPECIAL
            slot = (slot + 1) & 0xFFFF
        return self.enter_slot(slot, address)

    def first_slot(self, address: cython.uint, size: cython.uint) -> cython.uint:
        """Where the search for a block begins."""
        # The upper half of a product with a prime near the golden ratio of 2**31.
        slot: cython.uint = cython.cast(
            cython.uint, ((address + (size << 20)) * 0x4F1BBCDD) & LOW_32
        )
        return slot >> 16

    def enter_slot(self, slot: cython.uint, address: cython.uint) -> cython.uint:
        """Count the block in a slot; answers as `enter`."""
        facts: cython.ulonglong = self.blocks[2 * slot + 1]
        self.hot[SLOT] = slot
        self.hot[LEFT] -= facts & 0xFFFF
        role: cython.uint = cython.cast(cython.uint, (facts >> 16) & 0xFF)
        if role & 3:
            self.enter_rom(facts)
            if role & ROM_ROLES == ASKS_RELOC:
                return SPECIAL
            role = NOTHING
        role &= 127
        return SPECIAL if address == self.watched and address != 0 else role

    def enter_rom(self, facts: cython.ulonglong) -> cython.void:
        """Count a block as the ROM's, and perhaps as the start of a call.

        A call may start with a repeated string instruction, which is a block each time.
        """
        call: cython.uint = cython.cast(cython.uint, (facts >> 24) & 0xFF)
        if call:
            self.book()
            began: cython.ulonglong = self.count() - (facts & 0xFFFF)
            slot: cython.uint = cython.cast(cython.uint, self.hot[SLOT])
            tried: cython.bint = began == self.call_began and not self.counted_call
            repeats: cython.bint = began == self.call_began + 1
            self.counted_call = not (slot == self.call_slot and (tried or repeats))
            self.call_slot = slot
            self.call_began = began
            self.in_call = call - 1
            if self.counted_call:
                self.call_count[self.in_call] += 1
        self.hot[ROM] += facts & 0xFFFF

    def book(self) -> cython.void:
        """What the ROM has executed since it was booked last belongs to the call that it is in."""
        rom: cython.ulonglong = self.hot[ROM]
        self.call_instructions[self.in_call] += rom - self.booked
        self.booked = rom

    def special(self, address: cython.uint) -> cython.int:
        """Recognise a block, or learn it; follow the guest's questions to get_reloc.

        Answers NO_ROOM where the table has to be forgotten first, and TO_WATCH where the block has
        to be translated anew; then it has not counted the block.
        """
        if self.unknown:
            self.unknown = False
            end: cython.uint = self.fetch(address, self.new_size)
            sign: cython.ulonglong = self.sign(address, end)
            slot: cython.uint = self.find(address, self.new_size, sign)
            if not self.blocks[2 * slot]:
                self.hot[SLOT] = NO_BLOCK
                if self.used >= self.most or self.offsets_used + LONGEST_BLOCK >= OFFSETS:
                    return NO_ROOM
                self.learn(slot, address, end)
                self.signs[slot] = sign
                if self.keeper.wanted:
                    return TO_WATCH
            self.places[slot] = self.new_place
            if self.enter_slot(slot, address) != SPECIAL:
                return KNOWN
        if address == self.watched:
            self.watched = 0
            self.note_answer()
        if self.role() & ROM_ROLES == ASKS_RELOC:
            self.asked = self.cpu.reg(EAX)
            self.watch(int.from_bytes(self.read_virtual(self.cpu.reg(ESP), 4), "little"))
        return KNOWN

    def watch(self, address):
        """get_reloc will return there: the block must not pass unseen."""
        self.watched = address
        if address in self.returns:
            return
        self.returns.add(address)
        i: cython.uint
        for i in range(SLOTS):
            if self.blocks[2 * i] & LOW_32 == address:
                self.blocks[2 * i + 1] |= RETURN << ROLE_SHIFT
        # What is translated may count by itself.
        if self.paging.walk(address) and self.memory.is_ram(self.paging.physical >> 12):
            self.cpu.forget_code(self.memory.host(self.paging.physical >> 12))

    def current_slot(self) -> cython.uint:
        """The slot of the block that was entered last, or NO_BLOCK."""
        return cython.cast(cython.uint, self.hot[SLOT] & 0x1FFFF)

    def role(self) -> cython.uint:
        """What the block that was entered last is."""
        facts: cython.ulonglong = self.blocks[2 * self.current_slot() + 1]
        return cython.cast(cython.uint, (facts >> ROLE_SHIFT) & BYTE)

    def kind(self) -> cython.uint:
        """What `enter` answers for the block that was entered last, if not SPECIAL."""
        role: cython.uint = cython.cast(
            cython.uint, (self.blocks[2 * (self.hot[SLOT] & 0x1FFFF) + 1] >> 16) & 0x7F
        )
        return NOTHING if role & 3 else role

    def take_back(self) -> cython.ulonglong:
        """The block that was entered last has counted itself: uncount it; answers its key."""
        slot: cython.uint = cython.cast(cython.uint, self.hot[SLOT] & 0x1FFFF)
        self.hot[LEFT] += self.blocks[2 * slot + 1] & 0xFFFF
        return self.blocks[2 * slot]

    def forget(self):
        """Start the table of blocks afresh; translated code must go first."""
        i: cython.uint
        for i in range(SLOTS):
            self.blocks[2 * i] = self.blocks[2 * i + 1] = self.signs[i] = 0
            self.places[i] = UNSEEN
        self.used = self.offsets_used = 0
        self.hot[SLOT] = NO_BLOCK

    def fetch(self, address: cython.uint, size: cython.uint) -> cython.uint:
        """Read code into the buffer as the engine has; answers how much of it is mapped.

        That is through the shadow, which may be behind the guest's tables.
        """
        i: cython.uint
        done: cython.uint = 0
        size = min(size, CODE_BYTES)
        while done < size:
            at: cython.uint = (address + done) & LOW_32
            frame: cython.uint = self.shadow.frame_at(at)
            if frame == NO_HOST:
                if not self.paging.walk(at):
                    break
                frame = self.memory.host(self.paging.physical >> 12)
            count: cython.uint = min(size - done, 0x1000 - (at & 0xFFF))
            here: cython.ulonglong = (cython.cast(cython.ulonglong, frame) << 12) | (at & 0xFFF)
            for i in range(count):
                self.code[done + i] = 0xFF if frame == NO_HOST else self.memory.bytes[here + i]
            done += count
        return done

    def rom_offset(self, address: cython.uint) -> cython.Py_ssize_t:
        """Where in the ROM's image this linear address is; -1 if it is not."""
        if self.paging.walk(address) and self.rom_start <= self.paging.physical < self.rom_end:
            return self.paging.physical - self.rom_start
        return -1

    def sign(self, address: cython.uint, end: cython.uint) -> cython.ulonglong:
        """A hash of the code in the buffer, up to `end`, and of what else its facts depend on."""
        i: cython.uint
        sign: cython.ulonglong = FNV_START
        for i in range(end):
            sign = ((sign ^ self.code[i]) * FNV_PRIME) & LOW_64
        about: cython.ulonglong = cython.cast(cython.ulonglong, self.rom_offset(address) + 1)
        about = (about << 1) | (1 if self.cpu.code_is_wide() else 0)
        return ((sign ^ about) * FNV_PRIME) & LOW_64

    def find(self, address: cython.uint, size: cython.uint, sign: cython.ulonglong) -> cython.uint:
        """The slot of the block with this sign, or the empty one where it belongs."""
        key: cython.ulonglong = address | (cython.cast(cython.ulonglong, size) << 32)
        slot: cython.uint = self.first_slot(address, size)
        while self.blocks[2 * slot] and (self.blocks[2 * slot] != key or self.signs[slot] != sign):
            slot = (slot + 1) & 0xFFFF
        return slot

    def learn(self, slot: cython.uint, address: cython.uint, end: cython.uint) -> cython.int:
        """Decode the block at `address` into its slot; the buffer holds it up to `end`."""
        offset: cython.Py_ssize_t = self.rom_offset(address)
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
        call: cython.uint = 0
        if offset >= 0:
            role = IN_ROM
            if offset == GET_RELOC:
                role = ASKS_RELOC
                call = ROW_GET_RELOC + 1
            elif offset == VMI_INIT:
                call = ROW_INIT + 1
            else:
                for number, answer in self.answers.items():
                    if answer.address == address and answer.kind in (
                        RelocationKind.CALL_REL,
                        RelocationKind.JUMP_REL,
                    ):
                        call = number + 1
        elif end == 2 and role == PLAIN:
            role = string_kind(self.code[0], self.code[1])
        if address in self.returns:
            role |= RETURN
        self.used += 1
        facts: cython.ulonglong = self.offsets_used - first
        facts |= cython.cast(cython.ulonglong, role) << ROLE_SHIFT
        facts |= cython.cast(cython.ulonglong, call) << CALL_SHIFT
        facts |= cython.cast(cython.ulonglong, first) << OFFSETS_SHIFT
        self.blocks[2 * slot] = address | (cython.cast(cython.ulonglong, self.new_size) << 32)
        self.blocks[2 * slot + 1] = facts
        return 0

    def note_answer(self):
        """get_reloc has returned: remember where the call starts."""
        try:
            answer = RelocationAnswer.from_registers(self.cpu.reg(EAX), self.cpu.reg(EDX))
        except ValueError:
            return
        if self.asked < CALLS:
            self.answers[int(self.asked)] = answer

    def behind(self, eip: cython.uint) -> cython.uint:
        """How many instructions of the block that was entered last lie at `eip` or behind it."""
        key: cython.ulonglong = self.blocks[2 * self.current_slot()]
        address: cython.uint = cython.cast(cython.uint, key & LOW_32)
        within: cython.uint = eip - address
        if eip < address or within >= key >> 32:
            return 0
        facts: cython.ulonglong = self.blocks[2 * self.current_slot() + 1]
        first: cython.uint = cython.cast(cython.uint, facts >> OFFSETS_SHIFT)
        executed: cython.uint = 0
        count: cython.uint = cython.cast(cython.uint, facts & COUNT_MASK)
        while executed < count and self.offsets[first + executed] < within:
            executed += 1
        return count - executed

    def last_length(self) -> cython.uint:
        """The length in bytes of the instruction that ends the block that was entered last.

        0 if that was left.
        """
        slot: cython.uint = self.current_slot()
        facts: cython.ulonglong = self.blocks[2 * slot + 1]
        if not facts:
            return 0
        last: cython.ulonglong = (facts >> OFFSETS_SHIFT) + (facts & COUNT_MASK) - 1
        return cython.cast(cython.uint, self.blocks[2 * slot] >> 32) - self.offsets[last]

    def now_at(self, eip: cython.uint) -> cython.ulonglong:
        """Virtual time before the instruction at `eip`, also where its block is counted whole."""
        return self.now() - self.behind(eip) * NS_PER_INSTRUCTION

    def leave_at(self, eip: cython.uint) -> cython.int:
        """The block was left before the instruction at linear address `eip`.

        The rest is taken back.
        """
        key: cython.ulonglong = self.blocks[2 * self.current_slot()]
        address: cython.uint = cython.cast(cython.uint, key & LOW_32)
        within: cython.uint = eip - address
        self.left_slot = NO_BLOCK
        if eip >= address and within < key >> 32:
            facts: cython.ulonglong = self.blocks[2 * self.current_slot() + 1]
            rest: cython.uint = self.behind(eip)
            self.left_slot = self.current_slot()
            self.left_rest = rest
            self.hot[LEFT] += rest
            self.left_role = cython.cast(cython.uint, (facts >> ROLE_SHIFT) & ROM_ROLES)
            self.left_entry = False
            if self.left_role:
                self.hot[ROM] -= rest
                if rest == (facts & COUNT_MASK) and (facts >> CALL_SHIFT) & BYTE:
                    self.left_entry = self.counted_call
                    if self.counted_call:
                        self.call_count[self.in_call] -= 1
        self.hot[SLOT] = NO_BLOCK
        return 0

    def stay(self) -> cython.bint:
        """Count the rest of the block that was left last after all: the engine is still in it.

        False, and nothing done, where its rest has to be looked at as a block of its own, as
        `Vcpu.block` would, and where it goes on in another page.
        """
        key: cython.ulonglong = self.blocks[2 * self.left_slot]
        facts: cython.ulonglong = self.blocks[2 * self.left_slot + 1]
        if (
            self.left_slot == NO_BLOCK
            or (key & PAGE_OFFSET) + (key >> 32) > PAGE_SIZE
            or (facts >> ROLE_SHIFT) & BYTE > IN_ROM
            or self.hot[LEFT] <= self.left_rest
        ):
            return False
        self.hot[LEFT] -= self.left_rest
        self.hot[SLOT] = self.left_slot
        if self.left_role:
            self.hot[ROM] += self.left_rest
            if self.left_entry:
                self.call_count[self.in_call] += 1
                self.left_entry = False
        return True

    def retire(self) -> cython.int:
        """The instruction at which the block was left has been carried out after all."""
        self.hot[LEFT] -= 1
        if self.left_role:
            self.hot[ROM] += 1
            if self.left_entry:
                self.call_count[self.in_call] += 1
                self.left_entry = False
        return 0

    def pass_one(self) -> cython.int:
        """The instruction before which a block ended has been carried out, and not by the engine.

        It is none of the ROM's.
        """
        self.hot[LEFT] -= 1
        return 0

    def is_rom(self, address: cython.uint) -> cython.bint:
        """Is this linear address in the ROM's image?"""
        return self.rom_offset(address) >= 0

    def read_virtual(self, address, size):
        """Guest-virtual memory as bytes; stops short where nothing is mapped."""
        out = bytearray()
        while len(out) < size:
            here = (address + len(out)) & 0xFFFFFFFF
            if not self.paging.walk(here):
                break
            length = min(size - len(out), 4096 - (here & 0xFFF))
            out += self.memory.read(self.paging.physical, length)
        return bytes(out)

    def shared_with(self, row):
        """The numbers of all calls that start where this one does, by get_reloc's answers."""
        answer = self.answers.get(row)
        if answer is None:
            return [row]
        return [number for number, other in sorted(self.answers.items()) if other == answer]

    def calls(self):
        """{row: (times entered, instructions)}.

        Rows are call numbers, then vmi_init, get_reloc and what was entered otherwise.
        """
        self.book()
        return {
            row: (int(self.call_count[row]), int(self.call_instructions[row]))
            for row in range(ROWS)
            if self.call_count[row] or self.call_instructions[row]
        }
