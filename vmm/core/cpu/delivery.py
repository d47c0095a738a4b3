"""Deliver exceptions and interrupts through the guest's IDT (Intel SDM vol. 3, chapter 6).

Everything is looked up through the guest's own tables in software, and nothing of
the guest changes until the whole frame is known to fit: a fault on the way is an
outcome, never a half-done delivery.
"""

from array import array

import cython

from vmm.core.cpu.cpustate import CpuState
from vmm.core.errors import TripleFault, Unsupported
from vmm.core.memory import GuestMemory
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadow import ShadowMmu
from vmm.core.saved import U64, Fields

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
ESP = cython.declare(cython.uint, 4)
CS = cython.declare(cython.uint, 1)
SS = cython.declare(cython.uint, 2)
LDT = cython.declare(cython.uint, 6)
TR = cython.declare(cython.uint, 7)
GDT = cython.declare(cython.uint, 8)
IDT = cython.declare(cython.uint, 9)

DIVIDE_ERROR = cython.declare(cython.uint, 0)
DOUBLE_FAULT = cython.declare(cython.uint, 8)
INVALID_TSS = cython.declare(cython.uint, 10)
SEGMENT_NOT_PRESENT = cython.declare(cython.uint, 11)
STACK_FAULT = cython.declare(cython.uint, 12)
GENERAL_PROTECTION = cython.declare(cython.uint, 13)
PAGE_FAULT = cython.declare(cython.uint, 14)

NO_ERROR_CODE = cython.declare(cython.int, -1)
DONE = cython.declare(cython.int, -1)

# TF, NT, RF, VM; and IF for an interrupt gate.
CLEARED_ALWAYS = cython.declare(cython.uint, 0x34100)
INTERRUPT_FLAG = cython.declare(cython.uint, 0x200)
# IF, TF, AC.
REAL_MODE_CLEARS = cython.declare(cython.uint, 0x40300)
PROTECTED = cython.declare(cython.uint, 1)


@cython.cfunc
@cython.inline
def is_contributory(vector: cython.uint) -> cython.bint:
    """SDM table 6-4."""
    return vector == DIVIDE_ERROR or INVALID_TSS <= vector <= GENERAL_PROTECTION


@cython.final
@cython.cclass
class Delivery:
    """Puts one CPU into its handlers."""

    SAVED = Fields(
        {U64: "delivered"},
        wiring="cpu memory paging shadow",
        transient="stack places low high stack_low stack_high value",
        host="trap",
    )

    def __init__(self, cpu: CpuState, memory: GuestMemory, paging: GuestPaging, shadow: ShadowMmu):
        self.cpu = cpu
        self.memory = memory
        self.paging = paging
        self.shadow = shadow
        self.stack = array("I", bytes(4 * 8))
        self.places = array("I", bytes(4 * 8))
        self.low = self.high = 0
        self.stack_low = self.stack_high = 0
        self.value = 0
        self.delivered = 0
        # Called in place of the guest's handlers, with what they would be entered for.
        self.trap: object = None

    def deliver(
        self, vector: cython.uint, error: cython.int, software: cython.bint, return_eip: cython.uint
    ) -> cython.int:
        """Enter the handler of `vector`; answers the vector that was delivered in the end.

        `error` is the error code or -1 for none, `software` says INT n, and
        `return_eip` is what the frame holds. Where the delivery itself faults, that
        fault or a double fault is delivered instead; raises `TripleFault` when the
        double fault cannot be either.
        """
        outcome: cython.int
        second: cython.uint
        if self.trap is not None:
            self.trap(int(vector), int(error), bool(software), int(return_eip))
            return vector
        if not self.paging.cr0 & PROTECTED:
            self.deliver_in_real_mode(vector, return_eip)
            self.delivered += 1
            return vector
        while True:
            outcome = self.attempt(vector, error, software, return_eip)
            if outcome == DONE:
                self.delivered += 1
                return vector
            second = outcome >> 16
            if vector == DOUBLE_FAULT:
                raise TripleFault(
                    f"triple fault: vector {second} while delivering a double fault "
                    f"at {self.cpu.eip():#010x}"
                )
            if (is_contributory(vector) and is_contributory(second)) or (
                vector == PAGE_FAULT and (second == PAGE_FAULT or is_contributory(second))
            ):
                vector = DOUBLE_FAULT
                error = 0
            else:
                vector = second
                error = outcome & 0xFFFF
            # A fault during INT n reports the instruction, not the one after it.
            software = False
            return_eip = self.cpu.eip()

    def deliver_in_real_mode(self, vector: cython.uint, return_ip: cython.uint) -> cython.int:
        """Through the vector table: FLAGS, CS and IP on the stack (SDM vol. 3, 20.1.4)."""
        cpu: CpuState = self.cpu
        if vector * 4 + 3 > cpu.limit(IDT):
            raise TripleFault(f"shutdown: no vector {vector} in real mode at {cpu.eip():#010x}")
        flags: cython.uint = cpu.eflags()
        self.push_word(flags)
        self.push_word(cpu.selector(CS))
        self.push_word(return_ip)
        self.read(cpu.base(IDT) + vector * 4)
        cpu.load_real_segment(CS, self.value >> 16)
        cpu.clear_interrupt_shadow()
        cpu.clear_system_flags(REAL_MODE_CLEARS)
        return cpu.set_eip(self.value & 0xFFFF)

    def push_word(self, value: cython.uint) -> cython.int:
        """Push 16 bits in real mode."""
        i: cython.uint
        sp: cython.uint = (self.cpu.reg(ESP) - 2) & 0xFFFF
        self.cpu.set_reg(ESP, ((self.cpu.reg(ESP) >> 16) << 16) | sp)
        for i in range(2):
            address: cython.uint = (self.cpu.base(SS) + ((sp + i) & 0xFFFF)) & LOW_32
            self.memory.write8(address, (value >> (8 * i)) & 0xFF)
            if self.shadow.is_traced(self.memory.host(address >> 12)):
                self.shadow.follower.entry_written((address >> 2) << 2)
        return 0

    def attempt(
        self, vector: cython.uint, error: cython.int, software: cython.bint, return_eip: cython.uint
    ) -> cython.int:
        """DONE, or the fault met on the way as vector << 16 | error code."""
        cpu: CpuState = self.cpu
        outside: cython.uint = 0 if software else 1
        gate_error: cython.int = vector * 8 + 2 + outside
        fault: cython.int
        if vector * 8 + 7 > cpu.limit(IDT):
            return (GENERAL_PROTECTION << 16) | gate_error
        fault = self.read(cpu.base(IDT) + vector * 8)
        if fault != DONE:
            return fault
        gate_low: cython.uint = self.value
        fault = self.read(cpu.base(IDT) + vector * 8 + 4)
        if fault != DONE:
            return fault
        gate_high: cython.uint = self.value
        kind: cython.uint = (gate_high >> 8) & 0x1F
        if kind == 5 or kind == 6 or kind == 7:
            raise Unsupported(f"task or 16-bit gate for vector {vector} at {cpu.eip():#010x}")
        if kind != 14 and kind != 15:
            return (GENERAL_PROTECTION << 16) | gate_error
        cpl: cython.uint = cpu.cpl()
        if software and (gate_high >> 13) & 3 < cpl:
            return (GENERAL_PROTECTION << 16) | (vector * 8 + 2)
        if not gate_high & 0x8000:
            return (SEGMENT_NOT_PRESENT << 16) | gate_error
        selector: cython.uint = gate_low >> 16
        fault = self.descriptor(selector, outside)
        if fault != DONE:
            return fault
        code_low: cython.uint = self.low
        code_high: cython.uint = self.high
        selector_error: cython.int = (selector & 0xFFFC) | outside
        ring: cython.uint = (code_high >> 13) & 3
        if code_high & 0x1800 != 0x1800 or ring > cpl:
            return (GENERAL_PROTECTION << 16) | selector_error
        if not code_high & 0x8000:
            return (SEGMENT_NOT_PRESENT << 16) | selector_error
        if code_high & 0x400:
            ring = cpl
        flags: cython.uint = cpu.eflags()
        if flags & 0x20000:
            raise Unsupported(f"event in virtual-8086 mode at {cpu.eip():#010x}")

        old_esp: cython.uint = cpu.reg(ESP)
        esp: cython.uint = old_esp
        stack_base: cython.uint = cpu.base(SS)
        stack_selector: cython.uint = 0
        words: cython.uint = 0
        if ring < cpl:
            if 8 * ring + 11 > cpu.limit(TR):
                return (INVALID_TSS << 16) | (cpu.selector(TR) & 0xFFFC) | outside
            fault = self.read(cpu.base(TR) + 4 + 8 * ring)
            if fault != DONE:
                return fault
            esp = self.value
            fault = self.read(cpu.base(TR) + 8 + 8 * ring)
            if fault != DONE:
                return fault
            stack_selector = self.value & 0xFFFF
            fault = self.descriptor(stack_selector, outside)
            if fault != DONE:
                if fault >> 16 == PAGE_FAULT:
                    return fault
                return (INVALID_TSS << 16) | (stack_selector & 0xFFFC) | outside
            self.stack_low = self.low
            self.stack_high = self.high
            if (
                stack_selector & 3 != ring
                or (self.stack_high >> 13) & 3 != ring
                or self.stack_high & 0x1A00 != 0x1200
            ):
                return (INVALID_TSS << 16) | (stack_selector & 0xFFFC) | outside
            if not self.stack_high & 0x8000:
                return (STACK_FAULT << 16) | (stack_selector & 0xFFFC) | outside
            stack_base = (
                (self.stack_low >> 16)
                | ((self.stack_high & 0xFF) << 16)
                | ((self.stack_high >> 24) << 24)
            )
            self.stack[0] = cpu.selector(SS)
            self.stack[1] = old_esp
            words = 2
        self.stack[words] = flags
        self.stack[words + 1] = cpu.selector(CS)
        self.stack[words + 2] = return_eip
        words += 3
        if error != NO_ERROR_CODE:
            self.stack[words] = error
            words += 1

        i: cython.uint
        address: cython.uint
        for i in range(1, words + 1):
            address = (stack_base + esp - 4 * i) & LOW_32
            if address & 3:
                raise Unsupported(f"misaligned stack {address:#010x} at {cpu.eip():#010x}")
            place: cython.Py_ssize_t = self.paging.translate(address, True, False)
            if place < 0:
                return self.page_fault(address)
            self.places[i - 1] = cython.cast(cython.uint, place)
        # A stack in a page table would change where its own later words lie.
        for i in range(words):
            physical: cython.uint = self.places[i]
            self.memory.write32(physical, self.stack[i])
            if self.shadow.is_traced(self.memory.host(physical >> 12)):
                self.shadow.follower.entry_written(physical)

        cpu.load_segment(CS, (selector & 0xFFFC) | ring, code_low, code_high)
        if ring < cpl:
            cpu.load_segment(SS, stack_selector, self.stack_low, self.stack_high)
        cpu.set_reg(ESP, (esp - 4 * words) & LOW_32)
        cpu.enter_ring(ring)
        cpu.clear_system_flags(CLEARED_ALWAYS | (INTERRUPT_FLAG if kind == 14 else 0))
        cpu.set_eip((gate_low & 0xFFFF) | ((gate_high >> 16) << 16))
        return DONE

    def read(self, address: cython.uint) -> cython.int:
        """Fetch a dword of a system table into `value`: DONE or a page fault."""
        address = address & LOW_32
        physical: cython.Py_ssize_t = self.paging.translate(address, False, False)
        if physical < 0:
            return self.page_fault(address)
        if not address & 3:
            self.value = self.memory.read32(cython.cast(cython.uint, physical))
            return DONE
        value: cython.uint = 0
        i: cython.uint
        for i in range(4):
            physical = self.paging.translate((address + i) & LOW_32, False, False)
            if physical < 0:
                return self.page_fault((address + i) & LOW_32)
            value |= self.memory.read8(cython.cast(cython.uint, physical)) << (8 * i)
        self.value = value
        return DONE

    def descriptor(self, selector: cython.uint, outside: cython.uint) -> cython.int:
        """Fetch a descriptor into `low` and `high`: DONE or the fault of a bad selector."""
        table: cython.uint = LDT if selector & 4 else GDT
        offset: cython.uint = (selector >> 3) << 3
        if selector & 0xFFFC == 0 or offset + 7 > self.cpu.limit(table):
            return (GENERAL_PROTECTION << 16) | (selector & 0xFFFC) | outside
        fault: cython.int = self.read(self.cpu.base(table) + offset)
        if fault != DONE:
            return fault
        self.low = self.value
        fault = self.read(self.cpu.base(table) + offset + 4)
        if fault != DONE:
            return fault
        self.high = self.value
        return DONE

    def page_fault(self, address: cython.uint) -> cython.int:
        """The page fault that the latest translation met."""
        self.cpu.set_cr2(address)
        return (PAGE_FAULT << 16) | self.paging.error
