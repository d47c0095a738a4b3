"""The guest CPU's registers, read and written in place.

The layout is that of QEMU's CPUX86State as Unicorn 2.1.4 builds it for x86-64
hosts, in 8-byte units: general registers 0-7, EIP 16, EFLAGS 17; what the arithmetic flags
are evaluated from, 18-20, and in the dword behind it how; then
ten segment caches of three units (selector, base, limit and flags) from 23 on, in
the order ES CS SS DS FS GS LDT TR GDT IDT; control registers from 53 on. The
engine verifies that before it hands out the address.
"""

import ctypes
from array import array

import cython

from vmm.core.binding import EngineBinding
from vmm.core.saved import FLAG, U32, Fields

if not cython.compiled:
    from vmm.core.native import PageCall, RangeCall, RegisterCall, StopCall

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
LOW_64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)
EIP = cython.declare(cython.uint, 16)
EFLAGS = cython.declare(cython.uint, 17)
CC_SOURCE = cython.declare(cython.uint, 19)
CC_OPERATION = cython.declare(cython.uint, 42)
HFLAGS = cython.declare(cython.uint, 44)
SEGMENT_WORD = cython.declare(cython.uint, 46)
SEGMENT_QUAD = cython.declare(cython.uint, 24)
CODE_BASE = cython.declare(cython.uint, 27)
CR2 = cython.declare(cython.uint, 55)
# An LDT and a TSS; this engine wants the TSS available, not busy.
SYSTEM_TYPES = {6: 0x8200, 7: 0x8900}

INTERRUPT_FLAG = cython.declare(cython.uint, 0x200)

# hflags: what the translator assumes of the segments.
HF_CPL = cython.declare(cython.uint, 0x3)
HF_INTERRUPT_SHADOW = cython.declare(cython.uint, 0x8)
HF_CS32 = cython.declare(cython.uint, 0x10)
HF_SS32 = cython.declare(cython.uint, 0x20)
HF_ADDSEG = cython.declare(cython.uint, 0x40)
# These, and what follows from CR0.PE, MP, EM and TS, and from CR4.OSFXSR.
HF_OF_GUEST = cython.declare(cython.uint, 0x400EFB)

# IF, RF and VM.
SYSENTER_CLEARS = cython.declare(cython.uint, 0x30200)
FLAT_LOW = cython.declare(cython.uint, 0xFFFF)
FLAT_CODE = cython.declare(cython.uint, 0xCF9B00)
FLAT_DATA = cython.declare(cython.uint, 0xCF9300)

ESP = cython.declare(cython.uint, 4)
ES = cython.declare(cython.uint, 0)
CS = cython.declare(cython.uint, 1)
SS = cython.declare(cython.uint, 2)
DS = cython.declare(cython.uint, 3)


@cython.final
@cython.cclass
class CpuState:
    """One guest CPU. Register numbers are the encoding's: EAX 0, ECX 1, EDX 2, EBX 3, ..."""

    SAVED = Fields(
        {U32: "root", FLAG: "tlb_behind"},
        wiring="handle cpu error_index sysenter_word sysenter_quad flags_id cr0_id cr3_id cr4_id "
        "call_stop call_flush_page call_forget_code call_forget_all question call_read call_write "
        "keep",
        elsewhere="quads words",
        transient="fault scratch scratch_address",
    )

    def __init__(self, binding: EngineBinding):
        raw = memoryview((ctypes.c_ubyte * binding.state_size).from_address(binding.state))
        self.quads = raw.cast("B").cast("Q")
        self.words = raw.cast("B").cast("I")
        fault = memoryview((ctypes.c_ubyte * 8).from_address(binding.fault_address))
        self.fault = fault.cast("B").cast("I")
        scratch = array("I", bytes(16))
        self.scratch = scratch
        self.scratch_address = scratch.buffer_info()[0]
        self.keep = scratch
        self.handle = binding.handle
        self.cpu = binding.cpu
        self.error_index = binding.error_code_offset // 4
        self.sysenter_word = binding.sysenter_offset // 4
        self.sysenter_quad = binding.sysenter_stack_offset // 8
        self.flags_id = binding.flags_id
        self.cr0_id = binding.cr0_id
        self.cr3_id = binding.cr3_id
        self.cr4_id = binding.cr4_id
        self.call_stop = cython.cast(StopCall, cython.cast(cython.size_t, binding.stop))
        self.call_flush_page = cython.cast(PageCall, cython.cast(cython.size_t, binding.flush_page))
        self.call_forget_code = cython.cast(
            RangeCall, cython.cast(cython.size_t, binding.forget_code)
        )
        self.call_forget_all = cython.cast(
            PageCall, cython.cast(cython.size_t, binding.forget_all_code)
        )
        self.question = binding.question
        self.call_read = cython.cast(
            RegisterCall, cython.cast(cython.size_t, binding.read_register)
        )
        self.call_write = cython.cast(
            RegisterCall, cython.cast(cython.size_t, binding.write_register)
        )
        self.root = 0
        self.tlb_behind = False

    def reg(self, number: cython.uint) -> cython.uint:
        """A general register, 0-7."""
        return cython.cast(cython.uint, self.quads[number & 7] & LOW_32)

    def set_reg(self, number: cython.uint, value: cython.uint) -> cython.int:
        """Write a general register, 0-7."""
        self.quads[number & 7] = value
        return 0

    def eip(self) -> cython.uint:
        """The instruction that exited, or the next one to run."""
        return cython.cast(cython.uint, self.quads[EIP] & LOW_32)

    def linear(self, eip: cython.uint) -> cython.uint:
        """Where an offset into the code segment lies."""
        return cython.cast(cython.uint, (self.quads[CODE_BASE] + eip) & LOW_32)

    def set_eip(self, value: cython.uint) -> cython.int:
        """Where the guest goes on."""
        self.quads[EIP] = value
        return 0

    def go_back(self, length: cython.uint) -> cython.int:
        """Set EIP back by what the engine adds to it next: in 64 bits, as that does."""
        self.quads[EIP] = (self.quads[EIP] - length) & LOW_64
        return 0

    def cpl(self) -> cython.uint:
        """The current privilege level."""
        return self.words[HFLAGS] & HF_CPL

    def eflags(self) -> cython.uint:
        """EFLAGS, with the arithmetic flags evaluated."""
        self.call_read(self.handle, self.flags_id, self.scratch_address)
        return self.scratch[0]

    def set_eflags(self, value: cython.uint) -> cython.int:
        """Write EFLAGS whole."""
        self.scratch[0] = value
        self.call_write(self.handle, self.flags_id, self.scratch_address)
        return 0

    def flag_source(self) -> cython.ulonglong:
        """One of the values that the arithmetic flags are evaluated from."""
        return self.quads[CC_SOURCE]

    def flag_operation(self) -> cython.uint:
        """How they are."""
        return self.words[CC_OPERATION]

    def set_flag_source(self, source: cython.ulonglong, operation: cython.uint) -> cython.int:
        """Put both back, for code of the engine that goes on with them."""
        self.quads[CC_SOURCE] = source
        self.words[CC_OPERATION] = operation
        return 0

    def clear_system_flags(self, mask: cython.uint) -> cython.int:
        """Clear IF, TF, NT, RF or VM; the arithmetic flags are not kept here."""
        self.quads[EFLAGS] = self.quads[EFLAGS] & ~cython.cast(cython.ulonglong, mask)
        return 0

    def clear_interrupt_shadow(self) -> cython.int:
        """End the one instruction after STI or MOV SS in which interrupts wait."""
        self.words[HFLAGS] = self.words[HFLAGS] & ~HF_INTERRUPT_SHADOW
        return 0

    def can_interrupt(self) -> cython.bint:
        """Would the CPU take an external interrupt before its next instruction?"""
        return (self.quads[EFLAGS] & INTERRUPT_FLAG) != 0 and not (
            self.words[HFLAGS] & HF_INTERRUPT_SHADOW
        )

    def selector(self, segment: cython.uint) -> cython.uint:
        """The selector of a segment, in the order of the module's description."""
        return self.words[SEGMENT_WORD + 6 * segment]

    def base(self, segment: cython.uint) -> cython.uint:
        """The linear base of a segment or descriptor table."""
        return cython.cast(cython.uint, self.quads[SEGMENT_QUAD + 3 * segment] & LOW_32)

    def limit(self, segment: cython.uint) -> cython.uint:
        """The last valid offset of a segment or descriptor table."""
        return self.words[SEGMENT_WORD + 6 * segment + 4]

    def attributes(self, segment: cython.uint) -> cython.uint:
        """The high dword of the descriptor, as cached."""
        return self.words[SEGMENT_WORD + 6 * segment + 5]

    def load_segment(
        self, segment: cython.uint, selector: cython.uint, low: cython.uint, high: cython.uint
    ) -> cython.int:
        """Fill a segment cache from the two dwords of its descriptor."""
        limit: cython.uint = (low & 0xFFFF) | (high & 0xF0000)
        if high & 0x800000:
            limit = (limit << 12) | 0xFFF
        self.words[SEGMENT_WORD + 6 * segment] = selector
        self.quads[SEGMENT_QUAD + 3 * segment] = (
            (low >> 16) | ((high & 0xFF) << 16) | ((high >> 24) << 24)
        )
        self.words[SEGMENT_WORD + 6 * segment + 4] = limit
        self.words[SEGMENT_WORD + 6 * segment + 5] = high
        return 0

    def load_real_segment(self, segment: cython.uint, selector: cython.uint) -> cython.int:
        """Load a segment register in real mode: the limit and all else stay."""
        self.words[SEGMENT_WORD + 6 * segment] = selector & 0xFFFF
        self.quads[SEGMENT_QUAD + 3 * segment] = (selector & 0xFFFF) << 4
        return 0

    def set_segment(self, segment, selector, base, limit, attributes):
        """Write a segment cache or descriptor-table register whole."""
        self.words[SEGMENT_WORD + 6 * segment] = selector
        self.quads[SEGMENT_QUAD + 3 * segment] = base
        self.words[SEGMENT_WORD + 6 * segment + 4] = limit
        self.words[SEGMENT_WORD + 6 * segment + 5] = attributes

    def in_interrupt_shadow(self):
        """Is this the one instruction after STI or MOV SS in which interrupts wait?"""
        return (self.words[HFLAGS] & HF_INTERRUPT_SHADOW) != 0

    def set_interrupt_shadow(self, shadowed):
        """Begin or end that."""
        flags: cython.uint = self.words[HFLAGS] & ~HF_INTERRUPT_SHADOW
        self.words[HFLAGS] = flags | HF_INTERRUPT_SHADOW if shadowed else flags

    def hidden_flags(self):
        """What the translator assumes of segments and control registers."""
        return int(self.words[HFLAGS]) & HF_OF_GUEST

    def set_hidden_flags(self, flags):
        """Set that; all else in the word is the engine's."""
        self.words[HFLAGS] = (self.words[HFLAGS] & ~HF_OF_GUEST) | (flags & HF_OF_GUEST)

    def load_table(self, table: cython.uint, base: cython.uint, limit: cython.uint) -> cython.int:
        """Load GDTR (8) or IDTR (9)."""
        self.quads[SEGMENT_QUAD + 3 * table] = base
        self.words[SEGMENT_WORD + 6 * table + 4] = limit
        return 0

    def initialise(self, page):
        """Segments, general registers and EFLAGS after INIT, at real-mode page number `page`.

        SDM vol. 3, table "IA-32 Processor States Following Power-up, Reset, or INIT". CR0
        is for the caller to load.
        """
        for segment in range(8):
            self.load_segment(segment, 0, 0xFFFF, SYSTEM_TYPES.get(segment, 0x9300))
        for table in (8, 9):
            self.load_segment(table, 0, 0xFFFF, 0)
        self.load_real_segment(1, page << 8)
        self.enter_ring(0)
        for number in range(8):
            self.set_reg(number, 0)
        self.set_eflags(2)
        self.set_cr2(0)
        self.set_eip(0)

    def code_is_wide(self) -> cython.bint:
        """Does the code segment default to 32-bit operands and addresses?"""
        return (self.words[HFLAGS] & HF_CS32) != 0

    def enter_ring(self, ring: cython.uint) -> cython.int:
        """Make the translator's assumptions follow new CS and SS caches."""
        hflags: cython.uint = self.words[HFLAGS]
        hflags = hflags & ~(HF_CPL | HF_INTERRUPT_SHADOW | HF_CS32 | HF_SS32 | HF_ADDSEG)
        hflags |= ring
        if self.attributes(CS) & 0x400000:
            hflags |= HF_CS32
        if self.attributes(SS) & 0x400000:
            hflags |= HF_SS32
        if self.base(DS) | self.base(ES) | self.base(SS):
            hflags |= HF_ADDSEG
        self.words[HFLAGS] = hflags
        return 0

    def enter_kernel(self) -> cython.bint:
        """SYSENTER (SDM vol. 2): false, and nothing done, when no target was set."""
        selector: cython.uint = self.words[self.sysenter_word] & 0xFFFC
        if not selector:
            return False
        self.load_segment(CS, selector, FLAT_LOW, FLAT_CODE)
        self.load_segment(SS, selector + 8, FLAT_LOW, FLAT_DATA)
        self.enter_ring(0)
        self.clear_system_flags(SYSENTER_CLEARS)
        self.set_reg(ESP, cython.cast(cython.uint, self.quads[self.sysenter_quad] & LOW_32))
        self.set_eip(cython.cast(cython.uint, self.quads[self.sysenter_quad + 1] & LOW_32))
        return True

    def error_code(self) -> cython.uint:
        """The error code of the exception that exited."""
        return self.words[self.error_index]

    def fault_address(self) -> cython.uint:
        """The address of the page fault that exited; CR2 is not written by it."""
        return self.fault[0]

    def set_fault(self, address: cython.uint, error: cython.uint) -> cython.int:
        """Say what an intercepted page fault would."""
        self.fault[0] = address
        self.words[self.error_index] = error
        return 0

    def cr2(self) -> cython.uint:
        """CR2 as the guest sees it."""
        return cython.cast(cython.uint, self.quads[CR2] & LOW_32)

    def set_cr2(self, value: cython.uint) -> cython.int:
        """Write CR2."""
        self.quads[CR2] = value
        return 0

    def write_cr0(self, value: cython.uint) -> cython.int:
        """Load the real CR0, not the guest's idea of it."""
        self.scratch[0] = value
        self.scratch[1] = 0
        self.call_write(self.handle, self.cr0_id, self.scratch_address)
        return 0

    def write_cr4(self, value: cython.uint) -> cython.int:
        """Load the real CR4."""
        self.scratch[0] = value
        self.scratch[1] = 0
        self.call_write(self.handle, self.cr4_id, self.scratch_address)
        return 0

    def load_root(self, root: cython.uint) -> cython.int:
        """Load the real CR3: the physical address of a shadow root. Flushes the TLB."""
        self.root = root
        self.flush_tlb()
        return 0

    def flush_tlb(self) -> cython.int:
        """Forget every translation; writing CR3 is the engine's public way to say so."""
        self.scratch[0] = self.root
        self.scratch[1] = 0
        self.call_write(self.handle, self.cr3_id, self.scratch_address)
        return 0

    def flush_page(self, address: cython.uint) -> cython.int:
        """Forget the translation of one page of 4 KiB."""
        self.call_flush_page(self.cpu, (address >> 12) << 12)
        return 0

    def forget_code(self, frame: cython.uint) -> cython.void:
        """Drop what the engine has translated of the code in a frame of guest memory."""
        start: cython.ulonglong = cython.cast(cython.ulonglong, frame) << 12
        self.call_forget_code(self.handle, start, start + 4096)

    def forget_all_code(self):
        """Drop all that the engine has translated; it must not be running."""
        self.call_forget_all(self.cpu, 0)

    def stop(self) -> cython.void:
        """Make the engine return to the run loop at its next chance."""
        self.call_stop(self.handle)
