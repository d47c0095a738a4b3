"""The local APIC of one processor, in xAPIC mode, with the version of the Pentium 4's.

The book is Intel's SDM vol. 3, chapter "Advanced Programmable Interrupt Controller".
What comes in: fixed interrupts by `accept`, from the APIC bus; the wires LINT0 and
LINT1; the timer, on virtual time. What goes out: `pending` and `acknowledge` for
fixed interrupts and those that the 8259 asks for through LINT0; calls for all else.

Not here: system management (SMI is accepted, of no effect), x2APIC, the focus
processor, and the bus arbitration of the Pentium and P6.
"""

from array import array

import cython

from vmi.queue import APIC_MIRRORED
from vmm.core.apicmessage import BROADCAST, DeliveryMode
from vmm.core.bus import NoInterrupts
from vmm.core.memory import GuestMemory

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)

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
LVT_THERMAL = cython.declare(cython.uint, 0x330)
LVT_PERFORMANCE = cython.declare(cython.uint, 0x340)
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

# Bits of LVT entries.
MASKED = cython.declare(cython.uint, 0x10000)
LEVEL_TRIGGERED = cython.declare(cython.uint, 0x8000)
REMOTE_IRR = cython.declare(cython.uint, 0x4000)
ACTIVE_LOW = cython.declare(cython.uint, 0x2000)
TIMER_MODE_SHIFT = cython.declare(cython.uint, 17)
# Timer, thermal sensor, performance counters, LINT0, LINT1, error; delivery status and
# remote IRR are not the guest's to write.
LVT_WRITABLE = (0x700FF, 0x107FF, 0x107FF, 0x1A7FF, 0x1A7FF, 0x100FF)

ONE_SHOT = cython.declare(cython.uint, 0)
PERIODIC = cython.declare(cython.uint, 1)
DEADLINE = cython.declare(cython.uint, 2)

# Bits of an interrupt command.
LOGICAL = cython.declare(cython.uint, 0x800)
ASSERT = cython.declare(cython.uint, 0x4000)
COMMAND_WRITABLE = cython.declare(cython.uint, 0xCCFFF)
SHORTHAND_SHIFT = cython.declare(cython.uint, 18)
NO_SHORTHAND = cython.declare(cython.uint, 0)
SELF = cython.declare(cython.uint, 1)
ALL = cython.declare(cython.uint, 2)
ALL_BUT_SELF = cython.declare(cython.uint, 3)

FIXED = cython.declare(cython.uint, DeliveryMode.FIXED)
LOWEST_PRIORITY = cython.declare(cython.uint, DeliveryMode.LOWEST_PRIORITY)
SMI = cython.declare(cython.uint, DeliveryMode.SMI)
NMI = cython.declare(cython.uint, DeliveryMode.NMI)
INIT = cython.declare(cython.uint, DeliveryMode.INIT)
STARTUP = cython.declare(cython.uint, DeliveryMode.STARTUP)
EXTINT = cython.declare(cython.uint, DeliveryMode.EXTINT)
EVERYBODY = cython.declare(cython.uint, BROADCAST)

# Bits of the error status.
SEND_ILLEGAL_VECTOR = cython.declare(cython.uint, 0x20)
RECEIVED_ILLEGAL_VECTOR = cython.declare(cython.uint, 0x40)
ILLEGAL_REGISTER = cython.declare(cython.uint, 0x80)
FIRST_LEGAL_VECTOR = cython.declare(cython.uint, 16)

# IA32_APIC_BASE.
BASE_GLOBAL_ENABLE = cython.declare(cython.uint, 0x800)
BASE_BOOT_PROCESSOR = cython.declare(cython.uint, 0x100)
PAGE = cython.declare(cython.uint, 0xFFFFF000)
DEFAULT_PAGE = cython.declare(cython.uint, 0xFEE00000)

# The timer's input clock is one count a nanosecond. A period shorter than a few
# instructions would leave the guest no time to execute any: such a timer interrupts
# this often, whatever its count.
LEAST_PERIOD_NS = cython.declare(cython.ulonglong, 2000)


@cython.cfunc
@cython.inline
def highest(bits: cython.uint) -> cython.uint:
    """The number of the highest bit set; there is one."""
    number: cython.uint = 31
    while not (bits >> number) & 1:
        number -= 1
    return number


@cython.final
@cython.cclass
class LocalApic:
    """One local APIC, as an interrupt controller of its CPU.

    `number` is the APIC ID at reset, `boot` says bootstrap processor, `timers` and
    `now` are virtual time. `bus` gets `command(apic, low, destination)` and
    `end_of_interrupt(vector)` (`vmm.core.apicbus.ApicBus`). `external` is who answers
    an ExtINT at LINT0: the 8259s.

    To be set by its machine: `on_change(level)` hears each change of `pending`;
    `on_nmi()`, `on_init()` and `on_startup(page)` hear what their names say, and decide
    what the processor makes of it. The machine drives LINT0 from the 8259s' output.
    """

    def __init__(self, number, boot, timers, now, bus, external=None):
        self.initial_id = number
        self.boot = boot
        self.timers = timers
        self.now = now
        self.bus = bus
        self.external = NoInterrupts() if external is None else external
        self.on_change = nothing
        self.on_nmi = nothing
        self.on_init = nothing
        self.on_startup = nothing
        self.isr = array("I", bytes(32))
        self.irr = array("I", bytes(32))
        self.tmr = array("I", bytes(32))
        self.lvt = array("I", bytes(24))
        self.writable = array("I", LVT_WRITABLE)
        self.wires = array("I", bytes(8))
        self.pending = False
        self.timer_key = None
        self.due = 0
        self.memory = None
        self.eoi_address = self.mirror = 0
        self.eoi_promised = False
        self.base = DEFAULT_PAGE | BASE_GLOBAL_ENABLE | (BASE_BOOT_PROCESSOR if boot else 0)
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
        i: cython.uint
        self.tpr = self.esr = self.errors = 0
        self.ldr = 0
        self.dfr = FLAT_MODEL
        self.svr = 0xFF
        self.icr_low = self.icr_high = 0
        for i in range(8):
            self.isr[i] = self.irr[i] = self.tmr[i] = 0
        for i in range(6):
            self.lvt[i] = MASKED
        self.divide = 0
        self.initial = 0
        self.started = self.left = 0
        self.deadline = 0
        self.fired = 0
        self.external_wanted = False
        self.withdraw()
        self.arm()
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
        if was and not self.is_on():
            self.clear()
        self.update()
        return True

    def is_on(self) -> cython.bint:
        """Is it enabled by IA32_APIC_BASE?"""
        return (self.base & BASE_GLOBAL_ENABLE) != 0

    def is_enabled(self) -> cython.bint:
        """Does it take fixed interrupts: on, and enabled by software?"""
        return self.is_on() and (self.svr & SOFTWARE_ENABLE) != 0

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
            return self.tpr
        if offset == ARBITRATION_PRIORITY:
            return self.arbitration_priority()
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
            return self.isr[(offset - IN_SERVICE) >> 4]
        if TRIGGER_MODE <= offset < REQUESTS:
            return self.tmr[(offset - TRIGGER_MODE) >> 4]
        if REQUESTS <= offset < ERROR_STATUS:
            return self.irr[(offset - REQUESTS) >> 4]
        if offset == ERROR_STATUS:
            return self.esr
        if offset == COMMAND_LOW:
            return self.icr_low
        if offset == COMMAND_HIGH:
            return self.icr_high << 24
        if LVT_TIMER <= offset <= LVT_ERROR:
            return self.lvt[(offset - LVT_TIMER) >> 4]
        if offset == INITIAL_COUNT:
            return self.initial
        if offset == CURRENT_COUNT:
            return self.current_count()
        if offset == DIVIDE:
            return self.divide
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
            self.tpr = value & 0xFF
            return self.update()
        if offset == COMMAND_LOW:
            self.icr_low = value & COMMAND_WRITABLE
            return self.command()
        if offset == COMMAND_HIGH:
            self.icr_high = value >> 24
        elif LVT_TIMER <= offset <= LVT_ERROR:
            return self.write_lvt((offset - LVT_TIMER) >> 4, value)
        elif offset == INITIAL_COUNT:
            return self.start_timer(value)
        elif offset == DIVIDE:
            # What is left keeps counting, at the new rate.
            self.catch_up()
            self.left = self.current_count()
            self.started = self.now()
            self.divide = value & 0xB
            return self.arm()
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
        i: cython.uint
        self.catch_up()
        self.svr = value & SPURIOUS_WRITABLE
        if not self.svr & SOFTWARE_ENABLE:
            for i in range(6):
                self.lvt[i] = self.lvt[i] | MASKED
        self.arm()
        return self.update()

    def write_lvt(self, number: cython.uint, value: cython.uint) -> cython.int:
        """An LVT entry."""
        if number == 0:
            self.catch_up()
        before: cython.uint = self.lvt[number]
        value &= self.writable[number]
        if not self.svr & SOFTWARE_ENABLE:
            value |= MASKED
        if value & LEVEL_TRIGGERED:
            value |= before & REMOTE_IRR
        self.lvt[number] = value
        if number == 0:
            if (before ^ value) >> TIMER_MODE_SHIFT & 3:
                # Another mode stops the timer.
                self.initial = 0
                self.left = 0
                self.deadline = 0
            self.arm()
        elif number == 3 or number == 4:
            self.wire_changed(number - 3, False)
        return self.update()

    def error(self, bit: cython.uint) -> cython.int:
        """Note an error; the first of its kind since the last write to the ESR interrupts."""
        if self.errors & bit:
            return 0
        self.errors |= bit
        entry: cython.uint = self.lvt[5]
        if not entry & MASKED and entry & 0xFF >= FIRST_LEGAL_VECTOR:
            self.request(entry & 0xFF, False)
        return 0

    # ---- priorities

    def top(self, bits: cython.uint[::1]) -> cython.int:
        """The highest vector in a 256-bit register, or -1."""
        i: cython.int = 7
        while i >= 0:
            if bits[i]:
                return 32 * i + highest(bits[i])
            i -= 1
        return -1

    def processor_priority(self) -> cython.uint:
        """PPR: what an interrupt must exceed, in its upper four bits, to get in."""
        self.settle()
        serving: cython.int = self.top(self.isr)
        if serving < 0 or self.tpr >> 4 >= cython.cast(cython.uint, serving) >> 4:
            return self.tpr
        return cython.cast(cython.uint, serving) & 0xF0

    def arbitration_priority(self) -> cython.uint:
        """APR."""
        serving: cython.int = self.top(self.isr)
        asking: cython.int = self.top(self.irr)
        in_service: cython.uint = 0 if serving < 0 else serving >> 4
        asked: cython.uint = 0 if asking < 0 else asking >> 4
        task: cython.uint = self.tpr >> 4
        if task >= asked and task > in_service:
            return self.tpr
        return max(task & in_service, asked) << 4

    def deliverable(self) -> cython.int:
        """The vector that would get in now, or -1."""
        asking: cython.int = self.top(self.irr)
        if asking >= 0 and cython.cast(cython.uint, asking) >> 4 > self.processor_priority() >> 4:
            return asking
        return -1

    def external_asks(self) -> cython.bint:
        """Does the 8259 ask for an interrupt that reaches this processor?"""
        if self.external_wanted:
            return True
        if not self.wires[0]:
            return False
        if not self.is_on():
            return True
        entry: cython.uint = self.lvt[3]
        return not entry & MASKED and (entry >> 8) & 7 == EXTINT

    def update(self) -> cython.int:
        """Is the processor to be interrupted? Tell whoever waits for a change."""
        pending: cython.bint = self.external_asks() or (self.is_on() and self.deliverable() >= 0)
        if pending != self.pending:
            self.pending = pending
            self.on_change(bool(pending))
        return 0

    # ---- interrupts

    def request(self, vector: cython.uint, level: cython.bint) -> cython.int:
        """A fixed interrupt for this processor: pend it."""
        self.settle()
        self.withdraw()
        bit: cython.uint = cython.cast(cython.uint, 1) << (vector & 31)
        word: cython.uint = vector >> 5
        self.irr[word] = self.irr[word] | bit
        if level:
            self.tmr[word] = self.tmr[word] | bit
        else:
            self.tmr[word] = self.tmr[word] & ~bit
        return self.update()

    def accept(self, delivery, vector, level):
        """Take an interrupt from the bus; `delivery` is a `DeliveryMode`, `level` its trigger.

        False where it is refused: a fixed one that software has not enabled.
        """
        mode: cython.uint = delivery
        number: cython.uint = vector
        # Without its APIC a processor is not on the bus; only INIT and STARTUP reach it,
        # by wires of their own.
        if not self.is_on() and mode != INIT and mode != STARTUP:
            return False
        if mode == FIXED or mode == LOWEST_PRIORITY:
            if not self.svr & SOFTWARE_ENABLE:
                return False
            if number < FIRST_LEGAL_VECTOR:
                self.error(RECEIVED_ILLEGAL_VECTOR)
                return False
            self.request(number, bool(level))
        elif mode == NMI:
            self.on_nmi()
        elif mode == INIT:
            self.on_init()
        elif mode == STARTUP:
            self.on_startup(vector)
        elif mode == EXTINT:
            # From an I/O APIC's input that is wired to the 8259.
            self.external_wanted = True
            self.update()
        return True

    def acknowledge(self):
        """The vector to deliver now; the spurious one where nothing asks any more."""
        if self.external_asks():
            self.external_wanted = False
            vector = int(self.external.acknowledge())
            self.update()
            return vector
        asking: cython.int = self.deliverable()
        if asking < 0:
            self.update()
            return int(self.svr & 0xFF)
        word: cython.uint = cython.cast(cython.uint, asking) >> 5
        bit: cython.uint = cython.cast(cython.uint, 1) << (asking & 31)
        self.irr[word] = self.irr[word] & ~bit
        alone: cython.bint = self.top(self.isr) < 0 and self.top(self.irr) < 0
        self.isr[word] = self.isr[word] | bit
        if alone and self.eoi_address and not self.tmr[word] & bit:
            self.memory.write32(self.eoi_address, 1)
            self.eoi_promised = True
        self.update()
        return asking

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

    def settle(self) -> cython.int:
        """If the guest has ended its interrupt by clearing the word, take note."""
        if self.eoi_promised and not self.memory.read32(self.eoi_address):
            self.eoi_promised = False
            self.end_of_interrupt()
        return 0

    def withdraw(self) -> cython.int:
        """Somebody waits for the end of the interrupt in service: it must be told after all."""
        if self.eoi_promised:
            self.eoi_promised = False
            self.memory.write32(self.eoi_address, 0)
        return 0

    def end_of_interrupt(self) -> cython.int:
        """EOI: the highest vector in service is done."""
        self.withdraw()
        serving: cython.int = self.top(self.isr)
        if serving < 0:
            return 0
        word: cython.uint = cython.cast(cython.uint, serving) >> 5
        bit: cython.uint = cython.cast(cython.uint, 1) << (serving & 31)
        self.isr[word] = self.isr[word] & ~bit
        if self.tmr[word] & bit:
            number: cython.uint
            for number in range(2):
                if self.lvt[3 + number] & REMOTE_IRR and self.lvt[3 + number] & 0xFF == serving:
                    self.lvt[3 + number] = self.lvt[3 + number] & ~REMOTE_IRR
                    self.wire_changed(number, False)
            self.publish()
            self.bus.end_of_interrupt(int(serving))
        return self.update()

    def command(self) -> cython.int:
        """ICR: send an interrupt to other processors or to this one."""
        low: cython.uint = self.icr_low
        mode: cython.uint = (low >> 8) & 7
        shorthand: cython.uint = (low >> SHORTHAND_SHIFT) & 3
        if mode == FIXED or mode == LOWEST_PRIORITY:
            if low & 0xFF < FIRST_LEGAL_VECTOR:
                return self.error(SEND_ILLEGAL_VECTOR)
        elif mode == INIT and not low & ASSERT:
            # INIT level de-assert synchronised the arbitration IDs of older processors.
            return 0
        elif mode == 3 or mode == EXTINT:
            return 0
        # Only a fixed interrupt can be sent to oneself by shorthand (SDM, table "Valid
        # Combinations for the Pentium 4").
        if mode != FIXED and (shorthand == SELF or shorthand == ALL):
            return 0
        if shorthand == SELF:
            self.accept(FIXED, low & 0xFF, False)
            return 0
        self.bus.command(self, int(low), int(self.icr_high))
        return 0

    # ---- destinations

    def is_destination(self, logical: cython.bint, destination: cython.uint) -> cython.bint:
        """Does a message with this destination mean this APIC?"""
        if destination == EVERYBODY:
            return True
        if not logical:
            return destination == self.id
        if self.dfr == FLAT_MODEL:
            return self.ldr & destination != 0
        # Clusters of up to four.
        return self.ldr >> 4 == destination >> 4 and self.ldr & destination & 0xF != 0

    # ---- the wires LINT0 and LINT1

    def set_wire(self, number: cython.uint, high):
        """Drive LINT0 or LINT1: `high` is a request."""
        before: cython.bint = self.wires[number] != 0
        now: cython.bint = bool(high)
        if before == now:
            return
        self.wires[number] = 1 if now else 0
        self.wire_changed(number, now and not before)
        self.update()

    def wire_changed(self, number: cython.uint, rising: cython.bint) -> cython.int:
        """A wire or its LVT entry changed."""
        if not self.is_on():
            if number == 1 and rising:
                self.on_nmi()
            return 0
        entry: cython.uint = self.lvt[3 + number]
        if entry & MASKED or not self.wires[number]:
            return 0
        mode: cython.uint = (entry >> 8) & 7
        if mode == FIXED:
            # LINT1 is always edge-triggered.
            if entry & LEVEL_TRIGGERED and number == 0:
                if not entry & REMOTE_IRR and self.accept(FIXED, entry & 0xFF, True):
                    self.lvt[3 + number] = entry | REMOTE_IRR
                    self.publish()
            elif rising:
                self.accept(FIXED, entry & 0xFF, False)
        elif rising and (mode == NMI or mode == INIT):
            self.accept(mode, 0, False)
        return 0

    def local_interrupt(self, number: cython.uint):
        """The source of an LVT entry fires: 1 is the thermal sensor, 2 the performance counters.

        The performance counters mask their entry (SDM vol. 3, "Local Vector Table").
        """
        entry: cython.uint = self.lvt[number]
        if entry & MASKED:
            return
        self.accept((entry >> 8) & 7, int(entry & 0xFF), False)
        if number == 2:
            self.lvt[number] = entry | MASKED

    def timer_alarm(self):
        """An alarm that the ROM was asked for goes off at the timer's LVT entry."""
        self.local_interrupt(0)

    # ---- the timer

    def timer_mode(self) -> cython.uint:
        """One-shot, periodic, or deadline."""
        return (self.lvt[0] >> TIMER_MODE_SHIFT) & 3

    def step(self) -> cython.ulonglong:
        """Nanoseconds a count: 1 to 128."""
        code: cython.uint = ((self.divide >> 1) & 4) | (self.divide & 3)
        return 1 if code == 7 else cython.cast(cython.ulonglong, 2) << code

    def start_timer(self, count: cython.uint) -> cython.int:
        """The initial count starts the timer, zero stops it; no effect in deadline mode."""
        if self.timer_mode() == DEADLINE:
            return 0
        self.catch_up()
        self.initial = count
        self.left = count
        self.started = self.now()
        self.fired = 0
        return self.arm()

    def current_count(self) -> cython.uint:
        """What is left, at this moment."""
        if not self.initial or self.timer_mode() == DEADLINE:
            return 0
        now: cython.ulonglong = self.now()
        passed: cython.ulonglong = (now - self.started) // self.step()
        if passed < self.left:
            return cython.cast(cython.uint, self.left - passed)
        if self.timer_mode() != PERIODIC:
            return 0
        return cython.cast(cython.uint, self.initial - (passed - self.left) % self.initial)

    def catch_up(self) -> cython.int:
        """An expiry whose time has come is not lost to what the guest does right after it."""
        if self.timer_key is not None and self.due <= self.now():
            self.timers.cancel(self.timer_key)
            self.expired()
        return 0

    def arm(self) -> cython.int:
        """Put the next expiry on virtual time; none while nobody would hear of it."""
        if self.timer_key is not None:
            self.timers.cancel(self.timer_key)
            self.timer_key = None
        if self.lvt[0] & MASKED or not self.is_on():
            return 0
        if self.timer_mode() == DEADLINE:
            if not self.deadline:
                return 0
            self.due = self.deadline
        else:
            if not self.initial:
                return 0
            now: cython.ulonglong = self.now()
            self.due = self.started + self.left * self.step()
            if self.due <= now:
                if self.timer_mode() != PERIODIC:
                    return 0
                period: cython.ulonglong = self.initial * self.step()
                self.due += ((now - self.due) // period + 1) * period
                self.due = max(self.due, self.fired + LEAST_PERIOD_NS)
        self.timer_key = self.timers.at(int(self.due), self.expired)
        return 0

    def expired(self):
        """The timer ran out."""
        self.timer_key = None
        self.fired = self.now()
        if self.timer_mode() == DEADLINE:
            self.deadline = 0
        self.accept(FIXED, int(self.lvt[0] & 0xFF), False)
        self.arm()

    def deadline_msr(self):
        """The value of IA32_TSC_DEADLINE."""
        return int(self.deadline)

    def set_deadline_msr(self, value):
        """WRMSR to IA32_TSC_DEADLINE: arms the timer in that mode, 0 disarms it.

        The time-stamp counter counts nanoseconds of virtual time.
        """
        self.catch_up()
        if self.timer_mode() == DEADLINE:
            self.deadline = value & 0xFFFFFFFFFFFFFFFF
            self.arm()

    # ---- state

    def save(self):
        """{name: number, or list of numbers}: all there is, for `restore`.

        Times are nanoseconds of virtual time.
        """
        return {
            "base": int(self.base),
            "id": int(self.id),
            "tpr": int(self.tpr),
            "ldr": int(self.ldr),
            "dfr": int(self.dfr),
            "svr": int(self.svr),
            "esr": int(self.esr),
            "errors": int(self.errors),
            "icr_low": int(self.icr_low),
            "icr_high": int(self.icr_high),
            "isr": list(self.isr),
            "irr": list(self.irr),
            "tmr": list(self.tmr),
            "lvt": list(self.lvt),
            "wires": list(self.wires),
            "external_wanted": int(self.external_wanted),
            "divide": int(self.divide),
            "initial": int(self.initial),
            "left": int(self.left),
            "started": int(self.started),
            "fired": int(self.fired),
            "deadline": int(self.deadline),
            "eoi_address": int(self.eoi_address),
            "eoi_promised": int(self.eoi_promised),
            "mirror": int(self.mirror),
        }

    def restore(self, state):
        """Take on what `save` answered; raises `KeyError` for what is missing."""
        self.base = state["base"]
        self.id = state["id"]
        self.tpr = state["tpr"]
        self.ldr = state["ldr"]
        self.dfr = state["dfr"]
        self.svr = state["svr"]
        self.esr = state["esr"]
        self.errors = state["errors"]
        self.icr_low = state["icr_low"]
        self.icr_high = state["icr_high"]
        self.isr = array("I", state["isr"])
        self.irr = array("I", state["irr"])
        self.tmr = array("I", state["tmr"])
        self.lvt = array("I", state["lvt"])
        self.wires = array("I", state["wires"])
        self.external_wanted = bool(state["external_wanted"])
        self.divide = state["divide"]
        self.initial = state["initial"]
        self.left = state["left"]
        self.started = state["started"]
        self.fired = state["fired"]
        self.deadline = state["deadline"]
        self.eoi_address = state["eoi_address"]
        self.eoi_promised = bool(state["eoi_promised"])
        self.mirror = state["mirror"]
        self.arm()
        self.update()


def nothing(*_arguments):
    """Nobody listens."""
