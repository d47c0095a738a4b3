"""Privileged registers: control and debug registers, MSRs, CPUID and the time stamp.

The guest's control registers are ideas that the monitor keeps; the processor runs
on others (Intel SDM vol. 3, section 2.5).
"""

from array import array

import cython

from vmm.core.code.blocks import BlockMeter
from vmm.core.code.fetch import InstructionBytes
from vmm.core.counters import Counters
from vmm.core.cpu.cpustate import CpuState
from vmm.core.cpu.delivery import Delivery
from vmm.core.errors import StaleFetch, Unsupported
from vmm.core.event import Event
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadow import ShadowMmu
from vmm.core.paravirt.batch import BatchQueue
from vmm.core.saved import PART, Fields

CR_READ = cython.declare(cython.uint, Event.CR_READ)
MASKED_CR_READ = cython.declare(cython.uint, Event.MASKED_CR_READ)
CR_WRITE = cython.declare(cython.uint, Event.CR_WRITE)
CURTAIN = cython.declare(cython.uint, Event.CURTAIN)
DR_ACCESS = cython.declare(cython.uint, Event.DR_ACCESS)
CPUID = cython.declare(cython.uint, Event.CPUID)
MSR = cython.declare(cython.uint, Event.MSR)
RDTSC = cython.declare(cython.uint, Event.RDTSC)

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)

EAX = cython.declare(cython.uint, 0)
ECX = cython.declare(cython.uint, 1)
EDX = cython.declare(cython.uint, 2)
EBX = cython.declare(cython.uint, 3)
GENERAL_PROTECTION = cython.declare(cython.uint, 13)

CR0_PE = cython.declare(cython.uint, 0x1)
CR0_ET = cython.declare(cython.uint, 0x10)
CR0_TS = cython.declare(cython.uint, 0x8)
CR0_WP = cython.declare(cython.uint, 0x10000)
# LMSW writes the low four bits and can set PE but never clear it.
LMSW_CLEARS = cython.declare(cython.uint, 0xE)
LMSW_SETS = cython.declare(cython.uint, 0xF)
# The processor itself always runs paged and with write protection; without CR0.PE
# that is AMD-V's paged real mode (APM vol. 2, section 15.19).
REAL_CR0 = cython.declare(cython.uint, 0x80010000)
CR0_AFTER_INIT = cython.declare(cython.uint, 0x60000010)
CR4_PSE = cython.declare(cython.uint, 0x10)
CR4_PAE = cython.declare(cython.uint, 0x20)
CR4_KNOWN = cython.declare(cython.uint, 0x7FF)
# OSFXSR and OSXMMEXCPT reach the real CR4; all else there is the shadow's.
CR4_SSE = cython.declare(cython.uint, 0x600)

DR6_SINGLE_STEP = cython.declare(cython.uint, 0x4000)
MSR_TIME_STAMP = 0x10
MSR_APIC_BASE = 0x1B
MSR_TSC_DEADLINE = 0x6E0
MSR_EXTENDED_FEATURES = 0xC0000080
EFER_NXE = cython.declare(cython.uint, 0x800)

# Virtual time that RDTSC takes on top of its instruction, so that a guest which
# polls it sees time pass (measured on a Linux boot).
RDTSC_NS = cython.declare(cython.ulonglong, 200)


@cython.final
@cython.cclass
class PrivilegedRegisters:
    """Serves the exits of one CPU that read or write privileged registers.

    `cpuid` maps a leaf to EAX, EBX, ECX, EDX; `msrs` register numbers to values.
    """

    SAVED = Fields(
        {PART: "apic"},
        wiring="cpu paging shadow queue counters meter delivery code cpuid",
        elsewhere="msrs dr",
    )

    def __init__(
        self,
        cpu: CpuState,
        paging: GuestPaging,
        shadow: ShadowMmu,
        queue: BatchQueue,
        counters: Counters,
        meter: BlockMeter,
        delivery: Delivery,
        code: InstructionBytes,
        cpuid,
        msrs,
    ):
        self.cpu = cpu
        self.paging = paging
        self.shadow = shadow
        self.queue = queue
        self.counters = counters
        self.meter = meter
        self.delivery = delivery
        self.code = code
        self.cpuid = cpuid
        self.msrs = msrs
        self.apic = None
        self.dr = array("I", [0, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x400])

    def power_on(self):
        """Switch the processor to the shadow tables; the guest sees paging off."""
        self.cpu.write_cr4(CR4_PAE)
        self.shadow.load_root()
        self.cpu.write_cr0(self.paging.cr0 | REAL_CR0)

    def reload(self):
        """Everything else was loaded: the processor follows (`CpuState.root` included)."""
        self.cpu.write_cr4((self.paging.cr4 & CR4_SSE) | CR4_PAE)
        self.cpu.flush_tlb()
        self.cpu.write_cr0(self.paging.cr0 | REAL_CR0)

    def initialise(self):
        """Control and debug registers after INIT; MSRs and the time stamp stay."""
        self.cpu.set_reg(EDX, self.cpuid(1)[0])
        self.dr = array("I", [0, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x400])
        self.paging.cr0 = CR0_AFTER_INIT
        self.paging.cr3 = self.paging.cr4 = 0
        self.power_on()

    def debug(self, number):
        """DR0 to DR3, DR6 or DR7."""
        return int(self.dr[number])

    def set_debug(self, number, value):
        """Write one."""
        self.dr[number] = value

    def begin_with(self, cr0, cr3, cr4, efer):
        """The control registers of a CPU that begins in protected mode."""
        self.msrs[MSR_EXTENDED_FEATURES] = efer
        self.paging.no_execute = bool(efer & EFER_NXE)
        self.paging.cr0 = cr0 | CR0_ET
        self.paging.cr3 = cr3
        self.paging.cr4 = cr4
        self.power_on()
        self.cpu.write_cr4((cr4 & CR4_SSE) | CR4_PAE)

    def control_register(self, eip: cython.uint, write: cython.bint) -> cython.int:
        """MOV to or from CR0, CR3, CR4; CLTS, LMSW and SMSW arrive here too."""
        cpu: CpuState = self.cpu
        code: InstructionBytes = self.code
        code.load(eip)
        at: cython.uint = code.skip_prefixes() + 1
        opcode: cython.uint = code.byte(at)
        operand: cython.uint = code.byte(at + 1)
        number: cython.uint = (operand >> 3) & 7
        paging: GuestPaging = self.paging
        if opcode == 0x06:
            self.counters.count(CR_WRITE, 0, eip)
            self.set_cr0(paging.cr0 & ~CR0_TS)
            self.meter.retire()
            return cpu.set_eip(eip + at + 1)
        if opcode == 0x01:
            return self.machine_status_word(eip, at, write)
        if opcode == 0x20:
            self.counters.count(CR_READ if number == 3 else MASKED_CR_READ, number, eip)
            value: cython.uint = paging.cr4
            if number == 0:
                value = paging.cr0
            elif number == 3:
                value = paging.cr3
            cpu.set_reg(operand & 7, value)
        elif opcode == 0x22:
            value = cpu.reg(operand & 7)
            if number == 3 and self.shadow.curtain.word and value == self.shadow.curtain.value():
                self.counters.count(CURTAIN, 0, eip)
                self.shadow.curtain.lower(self.shadow.current)
                self.meter.retire()
                return cpu.set_eip(eip + at + 2)
            self.counters.count(CR_WRITE, number, eip)
            if number == 3:
                self.queue.drain()
                paging.cr3 = value
                self.queue.forget_fault_page()
                self.shadow.load_root()
            elif not (self.set_cr0(value) if number == 0 else self.set_cr4(value)):
                return self.delivery.deliver(GENERAL_PROTECTION, 0, False, eip)
        else:
            raise StaleFetch(f"opcode 0f {opcode:02x} exited as a control-register access")
        self.meter.retire()
        return cpu.set_eip(eip + at + 2)

    def machine_status_word(
        self, eip: cython.uint, at: cython.uint, write: cython.bint
    ) -> cython.int:
        """LMSW and SMSW in their register forms; kernels use no other."""
        operand: cython.uint = self.code.byte(at + 1)
        if operand < 0xC0:
            raise Unsupported(f"LMSW or SMSW with a memory operand at {eip:#010x}")
        number: cython.uint = operand & 7
        if write:
            self.counters.count(CR_WRITE, 0, eip)
            value: cython.uint = self.cpu.reg(number) & LMSW_SETS
            self.set_cr0((self.paging.cr0 & ~LMSW_CLEARS) | value)
        else:
            self.counters.count(MASKED_CR_READ, 0, eip)
            self.cpu.set_reg(number, self.paging.cr0)
        self.meter.retire()
        return self.cpu.set_eip(eip + at + 2)

    def set_cr0(self, value: cython.uint) -> cython.bint:
        """Load the guest's CR0; false for a combination that faults."""
        value = value | CR0_ET
        if not value & CR0_PE and value >> 31:
            return False
        changed: cython.uint = value ^ self.paging.cr0
        self.paging.cr0 = value
        self.cpu.write_cr0(value | REAL_CR0)
        if changed & CR0_WP:
            self.shadow.mode_changed()
        elif changed >> 31:
            self.queue.drain()
            self.shadow.load_root()
        return True

    def set_cr4(self, value: cython.uint) -> cython.bint:
        """Load the guest's CR4; false for reserved bits."""
        if value & ~CR4_KNOWN:
            return False
        # Whatever invalidates on a processor must find the queue empty.
        self.queue.drain()
        changed: cython.uint = value ^ self.paging.cr4
        self.paging.cr4 = value
        self.cpu.write_cr4((value & CR4_SSE) | CR4_PAE)
        if changed & (CR4_PSE | CR4_PAE):
            self.shadow.mode_changed()
        else:
            self.shadow.unsync.bring_into_step()
            self.cpu.flush_tlb()
        return True

    def debug_register(self, eip: cython.uint, write: cython.bint) -> cython.int:
        """MOV to or from a debug register; kept, without breakpoints being set."""
        self.code.load(eip)
        at: cython.uint = self.code.skip_prefixes() + 2
        operand: cython.uint = self.code.byte(at)
        number: cython.uint = (operand >> 3) & 7
        self.counters.count(DR_ACCESS, number, eip)
        if number == 4 or number == 5:
            number += 2
        if write:
            self.dr[number] = self.cpu.reg(operand & 7)
        else:
            self.cpu.set_reg(operand & 7, self.dr[number])
        self.meter.retire()
        return self.cpu.set_eip(eip + at + 1)

    def single_stepped(self):
        """A #DB comes from EFLAGS.TF, for no breakpoint is ever armed: say so in DR6."""
        self.dr[6] = self.dr[6] | DR6_SINGLE_STEP

    def identify(self, eip: cython.uint) -> cython.int:
        """CPUID."""
        leaf = int(self.cpu.reg(EAX))
        self.counters.count(CPUID, leaf, eip)
        eax, ebx, ecx, edx = self.cpuid(leaf)
        self.cpu.set_reg(EAX, eax)
        self.cpu.set_reg(EBX, ebx)
        self.cpu.set_reg(ECX, ecx)
        self.cpu.set_reg(EDX, edx)
        return self.skip(eip)

    def time_stamp(self, eip: cython.uint) -> cython.int:
        """RDTSC: virtual time."""
        self.counters.count(RDTSC, 0, eip)
        self.meter.charged_ns += RDTSC_NS
        self.set_pair(self.meter.now())
        return self.skip(eip)

    def skip(self, eip: cython.uint) -> cython.int:
        """Go on after a two-byte opcode without operands."""
        self.code.load(eip)
        self.meter.retire()
        return self.cpu.set_eip(eip + self.code.skip_prefixes() + 2)

    def model_specific_register(self, eip: cython.uint) -> cython.int:
        """RDMSR and WRMSR; a register that is not there faults."""
        number = int(self.cpu.reg(ECX))
        self.counters.count(MSR, number, eip)
        self.code.load(eip)
        write: cython.bint = self.code.byte(self.code.skip_prefixes() + 1) == 0x30
        if self.apic is not None and number in (MSR_APIC_BASE, MSR_TSC_DEADLINE):
            return self.apic_register(eip, number, write)
        if number not in self.msrs:
            return self.delivery.deliver(GENERAL_PROTECTION, 0, False, eip)
        if number == MSR_EXTENDED_FEATURES and write:
            if not self.set_extended_features():
                return self.delivery.deliver(GENERAL_PROTECTION, 0, False, eip)
        elif write:
            self.msrs[number] = self.cpu.reg(EAX) | (int(self.cpu.reg(EDX)) << 32)
        elif number == MSR_TIME_STAMP:
            self.set_pair(self.meter.now())
        else:
            self.set_pair(self.msrs[number])
        return self.skip(eip)

    def apic_register(self, eip: cython.uint, number, write: cython.bint) -> cython.int:
        """The two registers of the local APIC that are MSRs in xAPIC mode."""
        if not write:
            self.set_pair(
                self.apic.base_msr() if number == MSR_APIC_BASE else self.apic.deadline_msr()
            )
            return self.skip(eip)
        value = self.cpu.reg(EAX) | (int(self.cpu.reg(EDX)) << 32)
        if number == MSR_TSC_DEADLINE:
            self.apic.set_deadline_msr(value)
            return self.skip(eip)
        before = self.apic.base_msr()
        if not self.apic.set_base_msr(value):
            return self.delivery.deliver(GENERAL_PROTECTION, 0, False, eip)
        if self.apic.base_msr() != before:
            if self.apic.is_on() and self.shadow.memory.is_ram(self.apic.base >> 12):
                raise Unsupported(f"local APIC over RAM at {self.apic.base_msr():#x}")
            # Where it was, and where it is, may be mapped as something else.
            self.shadow.reset()
        return self.skip(eip)

    def set_extended_features(self) -> cython.bint:
        """WRMSR of EFER: no-execute is the one feature that a 32-bit guest can turn on."""
        value: cython.uint = self.cpu.reg(EAX)
        if value & ~EFER_NXE or self.cpu.reg(EDX):
            return False
        self.msrs[MSR_EXTENDED_FEATURES] = value
        self.paging.no_execute = value != 0
        self.shadow.mode_changed()
        return True

    def set_pair(self, value: cython.ulonglong) -> cython.int:
        """EDX:EAX = value."""
        self.cpu.set_reg(EAX, cython.cast(cython.uint, value & LOW_32))
        return self.cpu.set_reg(EDX, cython.cast(cython.uint, (value >> 32) & LOW_32))
