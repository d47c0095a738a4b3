"""The local APIC of one processor, in xAPIC mode, with the version of the Pentium 4's.

The book is Intel's SDM vol. 3, chapter "Advanced Programmable Interrupt Controller".
Here is what the guest reaches: the registers, and the MSRs IA32_APIC_BASE and
IA32_TSC_DEADLINE. What they control has files of its own in `apic`: interrupts in and out
(`interrupts`), vectors and their priorities (`vectors`), the local vector table with the
wires (`lvt`), the timer (`timer`).

Not here: system management (SMI is accepted, of no effect), x2APIC, the focus
processor, and the bus arbitration of the Pentium and P6.
"""

import cython

from vmi.queue import APIC_MIRRORED
from vmm.core.apic.interrupts import ApicInterrupts
from vmm.core.apicmessage import DeliveryMode
from vmm.core.memory import GuestMemory
from vmm.core.saved import FLAG, PART, U32, Fields

# Register offsets.
ID = cython.declare(cython.uint, 0x20)
VERSION = cython.declare(cython.uint, 0x30)
TASK_PRIORITY = cython.declare(cython.uint, 0x80)
ARBITRATION_PRIORITY = cython.declare(cython.uint, 0x90)
PROCESSOR_PRIORITY = cython.declare(cython.uint, 0xA0)
END_OF_INTERRUPT = cython.declare(cython.uint, 0xB0)
REMOTE_READ = cython.declare(cython.uint, 0xC0)
LOGICAL_DESTINATION = cython.declare(cython.uint, 0xD0)
DESTINATION_FORMAT = cython.declare(cython.uint, 0xE0)
SPURIOUS_VECTOR = cython.declare(cython.uint, 0xF0)
IN_SERVICE = cython.declare(cython.uint, 0x100)
TRIGGER_MODE = cython.declare(cython.uint, 0x180)
REQUESTS = cython.declare(cython.uint, 0x200)
ERROR_STATUS = cython.declare(cython.uint, 0x280)
COMMAND_LOW = cython.declare(cython.uint, 0x300)
COMMAND_HIGH = cython.declare(cython.uint, 0x310)
LVT_TIMER = cython.declare(cython.uint, 0x320)
LVT_LINT0 = cython.declare(cython.uint, 0x350)
LVT_LINT1 = cython.declare(cython.uint, 0x360)
LVT_ERROR = cython.declare(cython.uint, 0x370)
INITIAL_COUNT = cython.declare(cython.uint, 0x380)
CURRENT_COUNT = cython.declare(cython.uint, 0x390)
DIVIDE = cython.declare(cython.uint, 0x3E0)

# Integrated, six LVT entries.
VERSION_VALUE = cython.declare(cython.uint, 0x00050014)

SOFTWARE_ENABLE = cython.declare(cython.uint, 0x100)
# Enable and focus-checking disable; there is no suppression of EOI messages.
SPURIOUS_WRITABLE = cython.declare(cython.uint, 0x3FF)
FLAT_MODEL = cython.declare(cython.uint, 0xF)

# Bits of LVT entries, and their numbers.
LEVEL_TRIGGERED = cython.declare(cython.uint, 0x8000)
TIMER = cython.declare(cython.uint, 0)
LINT0 = cython.declare(cython.uint, 3)
LINT1 = cython.declare(cython.uint, 4)

# Bits of an interrupt command.
COMMAND_WRITABLE = cython.declare(cython.uint, 0xCCFFF)

NMI = cython.declare(cython.uint, DeliveryMode.NMI)
EXTINT = cython.declare(cython.uint, DeliveryMode.EXTINT)

# Bits of the error status.
ILLEGAL_REGISTER = cython.declare(cython.uint, 0x80)

# IA32_APIC_BASE.
BASE_GLOBAL_ENABLE = cython.declare(cython.uint, 0x800)
BASE_BOOT_PROCESSOR = cython.declare(cython.uint, 0x100)
PAGE = cython.declare(cython.uint, 0xFFFFF000)


@cython.final
@cython.cclass
class LocalApic(ApicInterrupts):
    """One local APIC, as an interrupt controller of its CPU.

    `number` is the APIC ID at reset, `boot` says bootstrap processor, `timers` and
    `now` are virtual time. `bus` gets `command(apic, low, destination)` and
    `end_of_interrupt(vector)` (`vmm.core.apicbus.ApicBus`). `external` is who answers
    an ExtINT at LINT0: the 8259s.

    To be set by its machine: `on_change(level)` hears each change of `pending`;
    `on_nmi()`, `on_init()` and `on_startup(page)` hear what their names say, and decide
    what the processor makes of it. The machine drives LINT0 from the 8259s' output.
    """

    SAVED = Fields(
        {
            PART: "vectors table timer",
            U32: "eoi_address mirror base id ldr dfr svr esr errors icr_low icr_high",
            FLAG: "eoi_promised external_wanted pending",
        },
        wiring="memory initial_id boot bus external on_change on_nmi on_init on_startup",
    )

    def __init__(self, number, boot, timers, now, bus, external=None):
        super().__init__(number, boot, timers, now, bus, external)
        self.mirror = 0
        self.reset()

    def reset(self):
        """The state after power-up; the base address stays."""
        self.id = self.initial_id
        self.clear()

    def initialise(self):
        """The state after INIT: as after power-up, but the APIC ID stays."""
        self.clear()

    def clear(self):
        """Everything but ID and base address."""
        self.esr = self.errors = 0
        self.ldr = 0
        self.dfr = FLAT_MODEL
        self.svr = 0xFF
        self.icr_low = self.icr_high = 0
        self.vectors.clear()
        self.table.mask_all(True)
        self.timer.clear()
        self.external_wanted = False
        self.withdraw()
        self.timer.arm()
        self.publish()
        self.update()

    def virtual_wire(self):
        """What PC firmware leaves on the boot processor (MP specification 1.4, 3.6.2.2).

        Enabled, LINT0 an ExtINT, LINT1 the NMI.
        """
        self.write(SPURIOUS_VECTOR, SOFTWARE_ENABLE | 0xFF)
        self.write(LVT_LINT0, LEVEL_TRIGGERED | (EXTINT << 8))
        self.write(LVT_LINT1, LEVEL_TRIGGERED | (NMI << 8))

    def set_memory(self, memory: GuestMemory):
        """Where `share` finds what it shares."""
        self.memory = memory

    # ---- IA32_APIC_BASE

    def base_msr(self):
        """The value of IA32_APIC_BASE."""
        return int(self.base)

    def set_base_msr(self, value):
        """WRMSR to IA32_APIC_BASE; false where it faults (a reserved bit).

        Switched off, the APIC loses its state, and LINT0 is the processor's INTR.
        """
        if value & ~(int(PAGE) | int(BASE_GLOBAL_ENABLE) | int(BASE_BOOT_PROCESSOR)):
            return False
        was: cython.bint = self.is_on()
        self.base = value & ~int(BASE_BOOT_PROCESSOR) | (BASE_BOOT_PROCESSOR if self.boot else 0)
        self.timer.is_on = self.is_on()
        if was and not self.is_on():
            self.clear()
        self.update()
        return True

    def is_at(self, physical: cython.uint) -> cython.bint:
        """Do its registers lie in the page of this guest-physical address?"""
        return (self.base & BASE_GLOBAL_ENABLE) != 0 and (physical ^ self.base) & PAGE == 0

    # ---- registers

    def load(self, offset: cython.uint, size: cython.uint) -> cython.uint:
        """A load of 1, 2 or 4 bytes; what is not within one register reads as zero."""
        within: cython.uint = offset & 0xF
        if within + size > 4:
            return 0
        value: cython.uint = self.read(offset & 0xFF0) >> (8 * within)
        if size == 4:
            return value
        return value & ((1 << (8 * size)) - 1)

    def store(self, offset: cython.uint, size: cython.uint, value: cython.uint) -> cython.int:
        """A store; what is not a whole register is dropped."""
        if size == 4 and not offset & 0xF:
            self.write(offset, value)
        return 0

    def read(self, offset: cython.uint) -> cython.uint:
        """The register at an offset, a multiple of 16 below 4096."""
        self.settle()
        if offset == ID:
            return self.id << 24
        if offset == VERSION:
            return VERSION_VALUE
        if offset == TASK_PRIORITY:
            return self.vectors.tpr
        if offset == ARBITRATION_PRIORITY:
            return self.vectors.arbitration_priority()
        if offset == PROCESSOR_PRIORITY:
            return self.processor_priority()
        if offset == REMOTE_READ or offset == END_OF_INTERRUPT:
            return 0
        if offset == LOGICAL_DESTINATION:
            return self.ldr << 24
        if offset == DESTINATION_FORMAT:
            return (self.dfr << 28) | 0x0FFFFFFF
        if offset == SPURIOUS_VECTOR:
            return self.svr
        if IN_SERVICE <= offset < TRIGGER_MODE:
            return self.vectors.isr[(offset - IN_SERVICE) >> 4]
        if TRIGGER_MODE <= offset < REQUESTS:
            return self.vectors.tmr[(offset - TRIGGER_MODE) >> 4]
        if REQUESTS <= offset < ERROR_STATUS:
            return self.vectors.irr[(offset - REQUESTS) >> 4]
        if offset == ERROR_STATUS:
            return self.esr
        if offset == COMMAND_LOW:
            return self.icr_low
        if offset == COMMAND_HIGH:
            return self.icr_high << 24
        if LVT_TIMER <= offset <= LVT_ERROR:
            return self.table.lvt[(offset - LVT_TIMER) >> 4]
        if offset == INITIAL_COUNT:
            return self.timer.initial
        if offset == CURRENT_COUNT:
            return self.timer.current_count()
        if offset == DIVIDE:
            return self.timer.divide
        self.error(ILLEGAL_REGISTER)
        return 0

    def write(self, offset: cython.uint, value: cython.uint) -> cython.int:
        """Store to the register at an offset, a multiple of 16 below 4096."""
        self.settle()
        if offset == END_OF_INTERRUPT:
            return self.end_of_interrupt()
        self.write_register(offset, value)
        return self.publish()

    def write_register(self, offset: cython.uint, value: cython.uint) -> cython.int:
        """The same, for all but EOI."""
        if offset == TASK_PRIORITY:
            self.vectors.tpr = value & 0xFF
            return self.update()
        if offset == COMMAND_LOW:
            self.icr_low = value & COMMAND_WRITABLE
            return self.command()
        if offset == COMMAND_HIGH:
            self.icr_high = value >> 24
        elif LVT_TIMER <= offset <= LVT_ERROR:
            return self.write_lvt((offset - LVT_TIMER) >> 4, value)
        elif offset == INITIAL_COUNT:
            return self.timer.start(value)
        elif offset == DIVIDE:
            return self.timer.set_divide(value)
        elif offset == ID:
            self.id = value >> 24
        elif offset == LOGICAL_DESTINATION:
            self.ldr = value >> 24
        elif offset == DESTINATION_FORMAT:
            self.dfr = value >> 28
        elif offset == SPURIOUS_VECTOR:
            return self.write_spurious(value)
        elif offset == ERROR_STATUS:
            # A write brings up to date what a read then sees (SDM: "before attempting to
            # read from the ESR, software should first write to it").
            self.esr = self.errors
            self.errors = 0
        elif (
            offset != VERSION
            and offset != ARBITRATION_PRIORITY
            and offset != PROCESSOR_PRIORITY
            and offset != REMOTE_READ
            and offset != CURRENT_COUNT
            and not IN_SERVICE <= offset < ERROR_STATUS
        ):
            self.error(ILLEGAL_REGISTER)
        return 0

    def write_spurious(self, value: cython.uint) -> cython.int:
        """SVR: switched off by software, every LVT entry is masked."""
        self.timer.catch_up()
        self.svr = value & SPURIOUS_WRITABLE
        if not self.svr & SOFTWARE_ENABLE:
            self.table.mask_all(False)
        self.timer.arm()
        return self.update()

    def write_lvt(self, number: cython.uint, value: cython.uint) -> cython.int:
        """An LVT entry."""
        keep_masked: cython.bint = not self.svr & SOFTWARE_ENABLE
        if number == TIMER:
            self.timer.catch_up()
            if self.table.write(number, value, keep_masked):
                self.timer.stop()
            self.timer.arm()
        else:
            self.table.write(number, value, keep_masked)
            if number == LINT0 or number == LINT1:
                self.wire_changed(number - LINT0, False)
        return self.update()

    # ---- ends of interrupts without an exit, as KVM's MSR_KVM_PV_EOI_EN has them

    def share(self, eoi_address, mirror):
        """From now on keep two places in guest memory up to date, guest-physical addresses.

        They are the words `APIC_EOI` and `APIC_REGISTERS` of `vmi.queue.HeaderField`.
        """
        self.eoi_address = eoi_address
        self.mirror = mirror
        self.eoi_promised = False
        self.memory.write32(eoi_address, 0)
        self.publish()

    def publish(self) -> cython.int:
        """Registers have changed: bring the mirror up to date."""
        if self.mirror:
            for offset in APIC_MIRRORED:
                self.memory.write32(self.mirror + offset // 4, self.read(offset))
        return 0

    # ---- IA32_TSC_DEADLINE

    def deadline_msr(self):
        """The value of IA32_TSC_DEADLINE."""
        return int(self.timer.deadline)

    def set_deadline_msr(self, value):
        """WRMSR to IA32_TSC_DEADLINE: arms the timer in that mode, 0 disarms it.

        The time-stamp counter counts nanoseconds of virtual time.
        """
        self.timer.set_deadline(value & 0xFFFFFFFFFFFFFFFF)

    # ---- state

    def save(self):
        """{name: number, or list of numbers}: all there is, for `restore`.

        Times are nanoseconds of virtual time.
        """
        return {
            "base": int(self.base),
            "id": int(self.id),
            "ldr": int(self.ldr),
            "dfr": int(self.dfr),
            "svr": int(self.svr),
            "esr": int(self.esr),
            "errors": int(self.errors),
            "icr_low": int(self.icr_low),
            "icr_high": int(self.icr_high),
            **self.vectors.save(),
            **self.table.save(),
            "external_wanted": int(self.external_wanted),
            **self.timer.save(),
            "eoi_address": int(self.eoi_address),
            "eoi_promised": int(self.eoi_promised),
            "mirror": int(self.mirror),
        }

    def restore(self, state):
        """Take on what `save` answered; raises `KeyError` for what is missing."""
        self.base = state["base"]
        self.id = state["id"]
        self.ldr = state["ldr"]
        self.dfr = state["dfr"]
        self.svr = state["svr"]
        self.esr = state["esr"]
        self.errors = state["errors"]
        self.icr_low = state["icr_low"]
        self.icr_high = state["icr_high"]
        self.vectors.restore(state)
        self.table.restore(state)
        self.external_wanted = bool(state["external_wanted"])
        self.timer.restore(state)
        self.eoi_address = state["eoi_address"]
        self.eoi_promised = bool(state["eoi_promised"])
        self.mirror = state["mirror"]
        self.timer.is_on = self.is_on()
        self.timer.arm()
        self.update()
