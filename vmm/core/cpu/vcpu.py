"""What happens at an exit.

The engine calls in with a number: 0x100 plus an exit code of AMD-V (APM vol. 2,
appendix C), since the engine is an AMD-V processor to us. Each handler does what
the guest asked for in the processor's place, counts the event, and lets the guest
go on. Whether the event is an exit is decided later, by the policy; nothing here
depends on it, apart from what the policy tells the ROM.
"""

import cython

from vmm.core.code.deviceaccess import DeviceAccess
from vmm.core.code.fetch import InstructionBytes
from vmm.core.code.stores import StoreEmulator
from vmm.core.counters import Counters
from vmm.core.cpu.blockentry import BlockEntry
from vmm.core.cpu.cpuid import cpuid_with_apic
from vmm.core.cpu.cpustate import CpuState
from vmm.core.cpu.delivery import Delivery
from vmm.core.cpu.privileged import PrivilegedRegisters
from vmm.core.errors import EngineFailure, Unsupported
from vmm.core.event import Event
from vmm.core.mmu.pagefaults import PageFaults
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadow import ShadowMmu
from vmm.core.paravirt.batch import BatchQueue
from vmm.core.paravirt.doorbell import DoorbellPort
from vmm.core.ports.access import PortAccess
from vmm.core.ports.reflector import Reflector
from vmm.core.ports.right import PortRight
from vmm.core.run.stop import Stop
from vmm.core.saved import FLAG, PART, U32, U64, Fields

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
INVLPG = cython.declare(cython.uint, Event.INVLPG)
HLT = cython.declare(cython.uint, Event.HLT)
WBINVD = cython.declare(cython.uint, Event.WBINVD)
PAUSE = cython.declare(cython.uint, Event.PAUSE)
SOFTWARE_INTERRUPT = cython.declare(cython.uint, Event.SOFTWARE_INTERRUPT)
EXCEPTION = cython.declare(cython.uint, Event.EXCEPTION)

STOP_HALTED = cython.declare(cython.uint, Stop.HALTED)
STOP_YIELD = cython.declare(cython.uint, Stop.YIELD)

# Exit codes, AMD64 Architecture Programmer's Manual vol. 2, appendix C.
EXIT_BASE = cython.declare(cython.uint, 0x100)
EXIT_CR_WRITE = cython.declare(cython.uint, 0x10)
EXIT_DR_READ = cython.declare(cython.uint, 0x20)
EXIT_DR_WRITE = cython.declare(cython.uint, 0x30)
EXIT_EXCEPTION = cython.declare(cython.uint, 0x40)
EXIT_EXCEPTION_END = cython.declare(cython.uint, 0x60)
EXIT_RDTSC = cython.declare(cython.uint, 0x6E)
EXIT_CPUID = cython.declare(cython.uint, 0x72)
EXIT_SWINT = cython.declare(cython.uint, 0x75)
EXIT_INVD = cython.declare(cython.uint, 0x76)
EXIT_PAUSE = cython.declare(cython.uint, 0x77)
EXIT_HLT = cython.declare(cython.uint, 0x78)
EXIT_INVLPG = cython.declare(cython.uint, 0x79)
EXIT_MSR = cython.declare(cython.uint, 0x7C)
EXIT_WBINVD = cython.declare(cython.uint, 0x89)
EXIT_MONITOR = cython.declare(cython.uint, 0x8A)
EXIT_MWAIT = cython.declare(cython.uint, 0x8B)

PAGE_FAULT_VECTOR = cython.declare(cython.uint, 14)
BREAKPOINT = cython.declare(cython.uint, 3)
OVERFLOW = cython.declare(cython.uint, 4)
DEBUG = cython.declare(cython.uint, 1)
GENERAL_PROTECTION = cython.declare(cython.uint, 13)
INVALID_OPCODE = cython.declare(cython.uint, 6)
NO_ERROR_CODE = cython.declare(cython.int, -1)

# Virtual time that PAUSE takes on top of its instruction, so that a guest which spins sees
# time pass: about what it takes on processors that make it slow (Skylake: 140 cycles,
# Intel's Optimization Reference Manual, "PAUSE Latency in Skylake").
PAUSE_NS = cython.declare(cython.ulonglong, 100)

# Exits in a row without an instruction completed before the run is given up: a handler
# that faults at its first instruction can go on for as long as there is stack.
IDLE_LIMIT = cython.declare(cython.uint, 100000)


@cython.final
@cython.cclass
class Vcpu(BlockEntry):
    """One virtual CPU: the kernel side of every exit.

    `index` is its number in the machine, whose `memory` and shadow `pages` it shares
    with the others. `ports` serves port accesses (`read(port, size)`, `write(port,
    size, value)`); an access that it answers is a heavy exit. `cpuid` and `msrs` are as
    in `PrivilegedRegisters`.
    """

    SAVED = Fields(
        {
            PART: "cpu paging shadow counters queue meter keeper delivery privileged doorbell "
            "faults ports",
            U32: "spins spin_limit idle_exits",
            U64: "progress",
            FLAG: "irq_pending window_wanted",
        },
        wiring="index memory code stores devices strings keep inline reflector fill mark_blocks "
        "table",
        derived="instruction_limit deadline stop_reason",
        transient="asked_device",
        host="error after_exit",
    )

    def __init__(self, index, cpu, memory, pages, features, ports, cpuid, msrs):
        paging = GuestPaging(memory)
        super().__init__(cpu, memory, ShadowMmu(memory, paging, cpu, pages, index), paging)
        self.index = index
        self.counters = Counters()
        self.queue = BatchQueue(memory, self.paging, self.shadow, features, index)
        self.delivery = Delivery(cpu, memory, self.paging, self.shadow)
        self.code = InstructionBytes(cpu, self.shadow)
        self.stores = StoreEmulator(cpu, memory, self.paging, self.code)
        self.devices = self.shadow.devices
        access = DeviceAccess(cpu, self.code, self.stores, self.devices)
        self.faults = PageFaults(
            cpu, self.paging, self.shadow, self.queue, self.counters, self.meter, self.delivery,
            self.stores, access, self.devices,
        )  # fmt: skip
        self.privileged = PrivilegedRegisters(
            cpu, self.paging, self.shadow, self.queue, self.counters, self.meter, self.delivery,
            self.code, cpuid, msrs,
        )  # fmt: skip
        self.doorbell = DoorbellPort(
            cpu, memory, self.paging, self.shadow, self.queue, self.counters
        )
        right = PortRight(cpu, memory, self.paging, self.code)
        self.reflector = Reflector(
            cpu, memory, self.paging, self.shadow, self.counters, self.meter, self.code
        )
        self.doorbell.reflector = self.reflector
        self.ports = PortAccess(
            cpu, self.counters, self.meter, self.delivery, self.doorbell, right, self.reflector,
            ports,
        )  # fmt: skip
        self.spins = self.spin_limit = 0
        self.window_wanted = False
        self.asked_device = False
        self.progress = 0xFFFFFFFFFFFFFFFF
        self.idle_exits = 0
        self.after_exit = None
        self.fill = None
        self.mark_blocks = None
        self.keep = []

    def connect(self, call_before, mark_blocks):
        """Two things that the engine is told.

        `call_before(addresses)` has it call before the instructions at these linear addresses, and
        no others; `mark_blocks(data)` has its callback at each block come with this data. Both are
        for what it translates from now on.
        """
        self.keeper.call_before = call_before
        self.mark_blocks = mark_blocks

    def plug_in(self, apic):
        """Give the CPU a local APIC that its guest can see."""
        apic.set_memory(self.memory)
        self.devices.set_apic(apic)
        self.privileged.apic = apic
        self.privileged.cpuid = cpuid_with_apic(apic)

    # ---- exits

    def exited(self, number: cython.uint) -> cython.int:
        """Serve one exit."""
        cpu: CpuState = self.cpu
        eip: cython.uint = cpu.eip()
        address: cython.uint = cpu.linear(eip)
        if address == self.keeper.at and number == EXIT_BASE + EXIT_EXCEPTION + PAGE_FAULT_VECTOR:
            self.keeper.put_back(self.meter.count())
        self.meter.leave_at(address)
        if self.ports.stepping:
            self.ports.end_step()
            if number == EXIT_BASE + EXIT_EXCEPTION + DEBUG:
                return 0
        if self.is_over():
            # A stop asked for in a port access takes effect at the end of its block;
            # what the guest still does before that is nobody's business.
            cpu.stop()
            return 0
        if self.meter.count() != self.progress:
            self.progress = self.meter.count()
            self.idle_exits = 0
        self.idle_exits += 1
        if self.idle_exits > IDLE_LIMIT:
            raise Unsupported(f"{IDLE_LIMIT} exits without an instruction completed at {eip:#010x}")
        if number < EXIT_BASE:
            raise EngineFailure(f"exception {number} reached the guest's IDT at {eip:#010x}")
        code: cython.uint = number - EXIT_BASE
        if code == EXIT_EXCEPTION + PAGE_FAULT_VECTOR:
            self.faults.page_fault(eip)
        elif code == EXIT_SWINT:
            self.software_interrupt(eip)
        elif code < EXIT_CR_WRITE:
            self.privileged.control_register(eip, False)
        elif code < EXIT_DR_READ:
            self.privileged.control_register(eip, True)
        elif code < EXIT_DR_WRITE:
            self.privileged.debug_register(eip, False)
        elif code < EXIT_EXCEPTION:
            self.privileged.debug_register(eip, True)
        elif code < EXIT_EXCEPTION_END:
            self.exception(code - EXIT_EXCEPTION, eip)
        elif code == EXIT_INVLPG:
            self.invlpg(eip)
        elif code == EXIT_RDTSC:
            self.privileged.time_stamp(eip)
        elif code == EXIT_CPUID:
            self.privileged.identify(eip)
        elif code == EXIT_HLT and self.reflector.on and self.ports.stopped(eip):
            pass
        elif code == EXIT_HLT:
            self.counters.count(HLT, 0, eip)
            cpu.set_eip(eip + 1)
            self.meter.retire()
            # The wake-up interrupt must not find the shadow of the STI before HLT.
            cpu.clear_interrupt_shadow()
            self.halt(STOP_HALTED)
        elif code == EXIT_MSR:
            self.privileged.model_specific_register(eip)
        elif code == EXIT_PAUSE:
            self.counters.count(PAUSE, 0, eip)
            # "rep nop": two bytes.
            cpu.set_eip(eip + 2)
            self.meter.retire()
            self.meter.charged_ns += PAUSE_NS
            self.spins += 1
            if self.spins == self.spin_limit:
                self.halt(STOP_YIELD)
        elif code == EXIT_MONITOR or code == EXIT_MWAIT:
            self.undefined(eip)
        elif code == EXIT_WBINVD or code == EXIT_INVD:
            self.counters.count(WBINVD, 0, eip)
            self.privileged.skip(eip)
        else:
            raise EngineFailure(f"exit code {code:#x} at {eip:#010x} has no handler")
        if self.after_exit is not None:
            self.after_exit()
        return 0

    def exception(self, vector: cython.uint, eip: cython.uint):
        """Any guest exception but #PF."""
        self.counters.count(EXCEPTION, vector, eip)
        error: cython.int = NO_ERROR_CODE
        if vector == 8 or 10 <= vector <= 14 or vector == 17:
            error = self.cpu.error_code()
        elif vector == DEBUG:
            self.privileged.single_stepped()
        self.delivery.deliver(vector, error, False, eip)

    def software_interrupt(self, eip: cython.uint) -> cython.int:
        """INT n, INT3, INTO: intercepted by the engine's need."""
        self.counters.count(SOFTWARE_INTERRUPT, 0, eip)
        self.code.load(eip)
        at: cython.uint = self.code.skip_prefixes()
        opcode: cython.uint = self.code.byte(at)
        self.meter.retire()
        if opcode == 0xCD:
            return self.delivery.deliver(self.code.byte(at + 1), NO_ERROR_CODE, True, eip + at + 2)
        vector: cython.uint = BREAKPOINT if opcode == 0xCC else OVERFLOW
        return self.delivery.deliver(vector, NO_ERROR_CODE, True, eip + at + 1)

    def invlpg(self, eip: cython.uint) -> cython.int:
        """Drop a translation: the shadow is in step already, so only the TLB is behind."""
        self.counters.count(INVLPG, 0, eip)
        self.queue.drain()
        self.code.load(eip)
        at: cython.uint = self.code.skip_prefixes()
        address: cython.uint = self.code.effective_address(at + 2)
        self.shadow.unsync.bring_entry_into_step(address)
        self.shadow.pages.flush_page(address)
        self.meter.retire()
        return self.cpu.set_eip(eip + at + 2 + self.code.operand_length(at + 2))

    def fault(self, address: cython.uint, error: cython.uint) -> cython.bint:
        """A page fault in the middle of a block, which the engine is still in.

        Answers whether the same access can be made now, and nothing else has to be looked at
        before it.
        """
        # A device that the instruction has asked already it would ask again from its start.
        moved: cython.bint = self.ports.stepping or self.asked_device
        done: cython.bint = False
        self.asked_device = False
        self.cpu.set_fault(address, error)
        self.faults.filled = False
        try:
            self.counters.begin()
            self.exited(EXIT_BASE + EXIT_EXCEPTION + PAGE_FAULT_VECTOR)
            self.counters.end()
            done = self.faults.filled
        except Exception as failure:  # noqa: BLE001 - it must not cross the engine's frames
            self.fail(failure)
        self.arm()
        return done and not moved and self.stop_reason == 0

    # ---- ports

    def port_in(self, port: cython.uint, size: cython.uint) -> cython.uint:
        """IN."""
        return 0 if self.is_over() else self.ports.read(port, size)

    def port_out(self, port: cython.uint, size: cython.uint, value: cython.uint) -> cython.int:
        """OUT."""
        if (
            not self.is_over()
            and self.ports.write(port, size, value)
            and self.after_exit is not None
        ):
            self.after_exit()
        return 0

    # ---- asked by the run loop

    def interrupt(self, vector):
        """Deliver an external interrupt now; the caller knows that it can be taken.

        The block that the engine was about to run has been counted: take it back.
        """
        eip = self.cpu.eip()
        self.meter.leave_at(self.cpu.linear(eip))
        self.delivery.deliver(vector, NO_ERROR_CODE, False, eip)
        if self.after_exit is not None:
            self.after_exit()

    def initialise(self, page):
        """INIT and start-up: real mode at the page with this number (SDM vol. 3, 9.1).

        MSRs, the time stamp, the floating-point registers and all counts stay.
        """
        self.queue.drain()
        self.queue.move_out()
        self.cpu.initialise(page)
        self.privileged.initialise()

    def can_interrupt_now(self):
        """Would the CPU take an external interrupt before its next instruction?"""
        return bool(self.cpu.can_interrupt())

    def count_event(self, event):
        """Count an event that the run loop saw."""
        self.counters.count(event, 0, self.cpu.eip())

    def sysenter(self) -> cython.int:
        """SYSENTER, which the engine knows as an instruction without effect.

        The engine adds the instruction's length to EIP after its hook.
        """
        length: cython.uint = self.meter.last_length()
        if not self.cpu.enter_kernel():
            self.delivery.deliver(GENERAL_PROTECTION, 0, False, self.cpu.eip())
        return self.cpu.go_back(length)

    def syscall(self) -> cython.int:
        """SYSCALL, which the engine knows as an instruction without effect.

        This processor has none, as CPUID says, nor EFER.SCE. The engine adds the
        instruction's length to EIP after its hook.
        """
        eip: cython.uint = self.cpu.eip()
        length: cython.uint = self.meter.last_length()
        self.meter.leave_at(self.cpu.linear(eip))
        self.undefined(eip)
        return self.cpu.go_back(length)

    def undefined(self, eip: cython.uint) -> cython.int:
        """An instruction that the engine knows and this processor does not."""
        self.counters.count(EXCEPTION, INVALID_OPCODE, eip)
        return self.delivery.deliver(INVALID_OPCODE, NO_ERROR_CODE, False, eip)

    def mmio_read(self, offset, size):
        """A load from a physical address without RAM, by an instruction of any form.

        EIP stands at the start of a stretch of code that the instruction is in.
        """
        target = (self.shadow.pages.windows.target(offset >> 12) << 12) | (offset & 0xFFF)
        self.faults.count_device_access(target, self.cpu.eip())
        value = self.devices.read(target, size)
        self.asked_device = True
        self.arm()
        return value

    def mmio_write(self, offset, size, value):
        """A store to a physical address without RAM."""
        target = (self.shadow.pages.windows.target(offset >> 12) << 12) | (offset & 0xFFF)
        self.faults.count_device_access(target, self.cpu.eip())
        self.devices.write(target, size, value & LOW_32)
        self.asked_device = True
        self.arm()
