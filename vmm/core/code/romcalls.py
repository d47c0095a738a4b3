"""Which calls of the ROM the guest makes, and what it executes in them.

The meter watches the guest ask the ROM's get_reloc, and so learns where each call starts
without knowing anything of the ROM's insides. What the ROM executes belongs to the call that
was entered last.
"""

from array import array

import cython

from vmi.address import GuestVirtual
from vmi.header import GET_RELOC, VMI_INIT
from vmi.relocation import RelocationAnswer, RelocationKind
from vmm.core.cpu.cpustate import CpuState
from vmm.core.mmu.paging import GuestPaging
from vmm.core.saved import ARRAY, CUSTOM, FLAG, U32, U64, VIRTUAL_TIME, BadState, Fields

EAX = cython.declare(cython.uint, 0)
EDX = cython.declare(cython.uint, 2)
ESP = cython.declare(cython.uint, 4)

# Rows of the tables beyond the call numbers.
CALLS = cython.declare(cython.uint, 128)
ROW_INIT = cython.declare(cython.uint, 128)
ROW_GET_RELOC = cython.declare(cython.uint, 129)
ROW_OTHER = cython.declare(cython.uint, 130)
ROWS = cython.declare(cython.uint, 131)

# No slot of the table of blocks.
NO_BLOCK = cython.declare(cython.uint, 1 << 16)
# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)


@cython.final
@cython.cclass
class RomCalls:
    """The calls that one CPU makes. Rows are call numbers, vmi_init, get_reloc and the rest.

    `watched` is where get_reloc will return to, or 0.
    """

    SAVED = Fields(
        {
            ARRAY: "times instructions",
            U32: "watched asked start end current slot",
            U64: "began",
            FLAG: "counted",
            VIRTUAL_TIME: "booked",
            CUSTOM: "answers returns",
        },
        wiring="cpu paging",
    )

    def __init__(self, cpu: CpuState, paging: GuestPaging):
        self.cpu = cpu
        self.paging = paging
        self.start = self.end = 0
        self.watched = 0
        self.asked = 0
        self.answers = {}
        self.returns = set()
        self.times = array("Q", bytes(8 * ROWS))
        self.instructions = array("Q", bytes(8 * ROWS))
        self.current = ROW_OTHER
        self.counted = False
        self.slot = NO_BLOCK
        self.began = 0
        self.booked = 0

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

    def _save_returns(self):
        """For `vmm.core.saved`."""
        return sorted(self.returns)

    def _load_returns(self, value):
        """The same."""
        self.returns = {int(address) for address in value}

    def _check_saved(self):
        """It is one of the rows that the CPU is in."""
        if self.current >= ROWS:
            raise BadState(f"in call {self.current} of {ROWS}")

    def watch(self, start, end):
        """The ROM image lies at guest-physical [start, end)."""
        self.start = start
        self.end = end

    # ---- where calls start

    def offset_of(self, address: cython.uint) -> cython.Py_ssize_t:
        """Where in the ROM's image this linear address is; -1 if it is not."""
        if self.paging.walk(address) and self.start <= self.paging.physical < self.end:
            return self.paging.physical - self.start
        return -1

    def is_rom(self, address: cython.uint) -> cython.bint:
        """Is this linear address in the ROM's image?"""
        return self.offset_of(address) >= 0

    def row_at(self, address: cython.uint, offset: cython.Py_ssize_t) -> cython.int:
        """The row of the call that starts at an address, and offset, in the ROM; -1 if none."""
        row: cython.int = -1
        if offset == GET_RELOC:
            return ROW_GET_RELOC
        if offset == VMI_INIT:
            return ROW_INIT
        for number, answer in self.answers.items():
            if answer.address == address and answer.kind in (
                RelocationKind.CALL_REL,
                RelocationKind.JUMP_REL,
            ):
                row = number
        return row

    def asks(self):
        """get_reloc is entered: answers where it will return to."""
        self.asked = self.cpu.reg(EAX)
        self.watched = int.from_bytes(self.paging.read(self.cpu.reg(ESP), 4), "little")
        return self.watched

    def note_answer(self):
        """get_reloc has returned: remember where the call starts."""
        self.watched = 0
        try:
            answer = RelocationAnswer.from_registers(self.cpu.reg(EAX), self.cpu.reg(EDX))
        except ValueError:
            return
        if self.asked < CALLS:
            self.answers[int(self.asked)] = answer

    # ---- what the guest executes

    def enter(
        self,
        row: cython.uint,
        slot: cython.uint,
        began: cython.ulonglong,
        rom: cython.ulonglong,
    ) -> cython.void:
        """A call is entered at a block, before which so many instructions were, `rom` the ROM's.

        It may start with a repeated string instruction, which is a block each time.
        """
        self.book(rom)
        tried: cython.bint = began == self.began and not self.counted
        repeats: cython.bint = began == self.began + 1
        self.counted = not (slot == self.slot and (tried or repeats))
        self.slot = slot
        self.began = began
        self.current = row
        if self.counted:
            self.times[row] += 1

    def leave(self) -> cython.bint:
        """The call that was entered last was left before its first instruction.

        Answers whether that entry had been counted.
        """
        if self.counted:
            self.times[self.current] -= 1
        return self.counted

    def enter_again(self) -> cython.void:
        """That instruction was carried out after all."""
        self.times[self.current] += 1

    def book(self, rom: cython.ulonglong) -> cython.void:
        """What the ROM has executed since it was booked last belongs to the call that it is in."""
        self.instructions[self.current] += rom - self.booked
        self.booked = rom

    def rows(self):
        """{row: (times entered, instructions)}."""
        return {
            row: (int(self.times[row]), int(self.instructions[row]))
            for row in range(ROWS)
            if self.times[row] or self.instructions[row]
        }

    def shared_with(self, row):
        """The numbers of all calls that start where this one does, by get_reloc's answers."""
        answer = self.answers.get(row)
        if answer is None:
            return [row]
        return [number for number, other in sorted(self.answers.items()) if other == answer]
