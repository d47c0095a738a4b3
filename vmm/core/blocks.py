"""Count guest instructions, block by block, and know which of them the ROM ran.

The engine tells when it enters a translated block. How many instructions a block
holds is decoded once and remembered; when an exit leaves a block in the middle, the
rest is taken back. So the count is exact, except that a repeated string instruction
counts once an iteration, and that code which was replaced by other code of the same
size at the same address keeps its old count.

The meter also watches the guest ask the ROM's get_reloc, and so learns where each
call starts without knowing anything of the ROM's insides.
"""

from array import array

import capstone
import cython

from vmi.header import GET_RELOC, VMI_INIT
from vmi.relocation import RelocationAnswer, RelocationKind
from vmm.core.cpustate import CpuState
from vmm.core.memory import GuestMemory
from vmm.core.paging import GuestPaging

SLOTS = cython.declare(cython.uint, 1 << 16)
SLOTS_MASK = cython.declare(cython.uint, (1 << 16) - 1)
SLOTS_LIMIT = cython.declare(cython.uint, 3 << 14)
OFFSETS = cython.declare(cython.uint, 1 << 20)
LONGEST_BLOCK = cython.declare(cython.uint, 1 << 12)

PLAIN = cython.declare(cython.uint, 0)
IN_ROM = cython.declare(cython.uint, 1)
ASKS_RELOC = cython.declare(cython.uint, 2)

EAX = cython.declare(cython.uint, 0)
EDX = cython.declare(cython.uint, 2)
ESP = cython.declare(cython.uint, 4)

# Rows of the call tables beyond the call numbers.
CALLS = cython.declare(cython.uint, 128)
ROW_INIT = cython.declare(cython.uint, 128)
ROW_GET_RELOC = cython.declare(cython.uint, 129)
ROW_OTHER = cython.declare(cython.uint, 130)
ROWS = cython.declare(cython.uint, 131)

# Virtual time: one instruction is one nanosecond.
NS_PER_INSTRUCTION = cython.declare(cython.ulonglong, 1)


@cython.final
@cython.cclass
class BlockMeter:
    """The instruction count of one CPU, and the machine's clock while that CPU runs."""

    def __init__(self, cpu: CpuState, memory: GuestMemory, paging: GuestPaging):
        self.cpu = cpu
        self.memory = memory
        self.paging = paging
        self.decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
        self.real_mode_decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_16)
        self.key_address = array("I", bytes(4 * SLOTS))
        self.key_size = array("I", bytes(4 * SLOTS))
        self.block_count = array("H", bytes(2 * SLOTS))
        self.block_role = bytearray(SLOTS)
        self.block_call = bytearray(SLOTS)
        self.block_offsets = array("I", bytes(4 * SLOTS))
        self.offsets = array("H", bytes(2 * OFFSETS))
        self.used = self.offsets_used = 0
        self.current_slot = self.current_address = self.current_size = 0
        self.left_role = PLAIN
        self.left_entry = False
        self.watched = 0
        self.asked = 0
        self.rom_start = self.rom_end = 0
        self.in_call = ROW_OTHER
        self.instructions = self.charged_ns = self.rom_instructions = 0
        self.elsewhere_ns = 0
        self.call_count = array("Q", bytes(8 * ROWS))
        self.call_instructions = array("Q", bytes(8 * ROWS))
        self.answers = {}

    def watch_rom(self, start, end):
        """The ROM image lies at guest-physical [start, end)."""
        self.rom_start = start
        self.rom_end = end

    def now(self) -> cython.ulonglong:
        """The machine's virtual time in nanoseconds, while this CPU is the one that runs."""
        return self.own() + self.elsewhere_ns

    def own(self) -> cython.ulonglong:
        """How long this CPU has run, in nanoseconds of virtual time."""
        return self.instructions * NS_PER_INSTRUCTION + self.charged_ns

    def take_over(self, now):
        """Run from now on, after others have brought virtual time to `now`."""
        self.elsewhere_ns = now - self.own()

    def enter(self, address: cython.uint, size: cython.uint) -> cython.bint:
        """Count a block; true when `special` must look at it as well."""
        slot: cython.uint = (address ^ (address >> 11) ^ (size << 5)) & SLOTS_MASK
        while self.block_count[slot]:
            if self.key_address[slot] == address and self.key_size[slot] == size:
                break
            slot = (slot + 1) & SLOTS_MASK
        self.current_slot = slot
        self.current_address = address
        self.current_size = size
        if not self.block_count[slot]:
            return True
        self.instructions += self.block_count[slot]
        if self.block_role[slot]:
            if self.block_call[slot]:
                self.in_call = self.block_call[slot] - 1
                self.call_count[self.in_call] += 1
            self.rom_instructions += self.block_count[slot]
            self.call_instructions[self.in_call] += self.block_count[slot]
            if self.block_role[slot] == ASKS_RELOC:
                return True
        return address == self.watched and address != 0

    def special(self, address: cython.uint) -> cython.int:
        """Learn a new block; follow the guest's questions to get_reloc."""
        size: cython.uint = self.current_size
        if not self.block_count[self.current_slot]:
            if self.used >= SLOTS_LIMIT or self.offsets_used + LONGEST_BLOCK >= OFFSETS:
                self.forget()
            self.learn(self.current_slot, address, size)
            if not self.enter(address, size):
                return 0
        if address == self.watched:
            self.watched = 0
            self.note_answer()
        if self.block_role[self.current_slot] == ASKS_RELOC:
            self.asked = self.cpu.reg(EAX)
            self.watched = int.from_bytes(self.read_virtual(self.cpu.reg(ESP), 4), "little")
        return 0

    def forget(self):
        """Start the table of blocks afresh."""
        i: cython.uint
        for i in range(SLOTS):
            self.block_count[i] = 0
        self.used = self.offsets_used = 0
        self.enter(self.current_address, self.current_size)

    def learn(self, slot: cython.uint, address: cython.uint, size: cython.uint) -> cython.int:
        """Decode a block of `size` bytes into its slot."""
        physical: cython.Py_ssize_t = -1
        if self.paging.walk(address):
            physical = self.paging.physical
        decoder = self.decoder if self.cpu.code_is_wide() else self.real_mode_decoder
        starts = [
            start - address
            for start, _, _, _ in decoder.disasm_lite(self.read_virtual(address, size), address)
        ] or [0]
        self.used += 1
        self.key_address[slot] = address
        self.key_size[slot] = size
        self.block_count[slot] = len(starts)
        self.block_role[slot] = PLAIN
        self.block_call[slot] = 0
        self.block_offsets[slot] = self.offsets_used
        for start in starts:
            self.offsets[self.offsets_used] = start
            self.offsets_used += 1
        if self.rom_start <= physical < self.rom_end:
            self.block_role[slot] = IN_ROM
            offset = physical - self.rom_start
            if offset == GET_RELOC:
                self.block_role[slot] = ASKS_RELOC
                self.block_call[slot] = ROW_GET_RELOC + 1
            elif offset == VMI_INIT:
                self.block_call[slot] = ROW_INIT + 1
            else:
                for number, answer in self.answers.items():
                    if answer.address == address and answer.kind in (
                        RelocationKind.CALL_REL,
                        RelocationKind.JUMP_REL,
                    ):
                        self.block_call[slot] = number + 1
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
        within: cython.uint = eip - self.current_address
        if self.current_size == 0 or eip < self.current_address or within >= self.current_size:
            return 0
        first: cython.uint = self.block_offsets[self.current_slot]
        executed: cython.uint = 0
        count: cython.uint = self.block_count[self.current_slot]
        while executed < count and self.offsets[first + executed] < within:
            executed += 1
        return count - executed

    def now_at(self, eip: cython.uint) -> cython.ulonglong:
        """Virtual time before the instruction at `eip`, also where its block is counted whole."""
        return self.now() - self.behind(eip) * NS_PER_INSTRUCTION

    def leave_at(self, eip: cython.uint) -> cython.int:
        """The block was left before the instruction at linear address `eip`.

        The rest is taken back.
        """
        within: cython.uint = eip - self.current_address
        if self.current_size and eip >= self.current_address and within < self.current_size:
            slot: cython.uint = self.current_slot
            first: cython.uint = self.block_offsets[slot]
            executed: cython.uint = 0
            count: cython.uint = self.block_count[slot]
            while executed < count and self.offsets[first + executed] < within:
                executed += 1
            self.instructions -= count - executed
            self.left_role = self.block_role[slot]
            self.left_entry = False
            if self.left_role:
                self.rom_instructions -= count - executed
                self.call_instructions[self.in_call] -= count - executed
                if executed == 0 and self.block_call[slot]:
                    self.call_count[self.in_call] -= 1
                    self.left_entry = True
        self.current_size = 0
        return 0

    def retire(self) -> cython.int:
        """The instruction at which the block was left has been carried out after all."""
        self.instructions += 1
        if self.left_role:
            self.rom_instructions += 1
            self.call_instructions[self.in_call] += 1
            if self.left_entry:
                self.call_count[self.in_call] += 1
                self.left_entry = False
        return 0

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
        return {
            row: (int(self.call_count[row]), int(self.call_instructions[row]))
            for row in range(ROWS)
            if self.call_count[row] or self.call_instructions[row]
        }
