"""Interrupts into a processor and out of it: what its local APIC does without its registers.

What comes in: fixed interrupts by `accept`, from the APIC bus; the wires LINT0 and
LINT1; the timer, on virtual time. What goes out: `pending` and `acknowledge` for
fixed interrupts and those that the 8259 asks for through LINT0; calls for all else.
Intel SDM vol. 3, "Handling Interrupts" and "Interrupt Command Register".
"""

import cython

from vmm.core.apic.lvt import LocalVectorTable
from vmm.core.apic.timer import ApicTimer
from vmm.core.apic.vectors import ApicVectors
from vmm.core.apicmessage import BROADCAST, DeliveryMode
from vmm.core.bus import NoInterrupts

SOFTWARE_ENABLE = cython.declare(cython.uint, 0x100)
FLAT_MODEL = cython.declare(cython.uint, 0xF)
ERROR = cython.declare(cython.uint, 5)
FIXED = cython.declare(cython.uint, DeliveryMode.FIXED)
LOWEST_PRIORITY = cython.declare(cython.uint, DeliveryMode.LOWEST_PRIORITY)
NMI = cython.declare(cython.uint, DeliveryMode.NMI)
INIT = cython.declare(cython.uint, DeliveryMode.INIT)
STARTUP = cython.declare(cython.uint, DeliveryMode.STARTUP)
EXTINT = cython.declare(cython.uint, DeliveryMode.EXTINT)
EVERYBODY = cython.declare(cython.uint, BROADCAST)
ASSERT = cython.declare(cython.uint, 0x4000)
SHORTHAND_SHIFT = cython.declare(cython.uint, 18)
SELF = cython.declare(cython.uint, 1)
ALL = cython.declare(cython.uint, 2)
SEND_ILLEGAL_VECTOR = cython.declare(cython.uint, 0x20)
RECEIVED_ILLEGAL_VECTOR = cython.declare(cython.uint, 0x40)
FIRST_LEGAL_VECTOR = cython.declare(cython.uint, 16)
BASE_GLOBAL_ENABLE = cython.declare(cython.uint, 0x800)
BASE_BOOT_PROCESSOR = cython.declare(cython.uint, 0x100)
DEFAULT_PAGE = cython.declare(cython.uint, 0xFEE00000)


@cython.cclass
class ApicInterrupts:
    """The part of a local APIC that `vmm.core.localapic.LocalApic` gives registers to.

    The parameters are described there.
    """

    def __init__(self, number, boot, timers, now, bus, external=None):
        self.initial_id = number
        self.boot = boot
        self.bus = bus
        self.external = NoInterrupts() if external is None else external
        self.on_change = nothing
        self.on_nmi = nothing
        self.on_init = nothing
        self.on_startup = nothing
        self.vectors = ApicVectors()
        self.table = LocalVectorTable(self.accept)
        self.timer = ApicTimer(self.table, timers, now)
        self.pending = False
        self.memory = None
        self.eoi_address = 0
        self.eoi_promised = False
        self.base = DEFAULT_PAGE | BASE_GLOBAL_ENABLE | (BASE_BOOT_PROCESSOR if boot else 0)

    def publish(self) -> cython.int:
        """A register has changed that the guest may read without asking."""
        return 0

    def is_on(self) -> cython.bint:
        """Is it enabled by IA32_APIC_BASE?"""
        return (self.base & BASE_GLOBAL_ENABLE) != 0

    def is_enabled(self) -> cython.bint:
        """Does it take fixed interrupts: on, and enabled by software?"""
        return self.is_on() and (self.svr & SOFTWARE_ENABLE) != 0

    # ---- what the processor is asked for

    def processor_priority(self) -> cython.uint:
        """PPR: what an interrupt must exceed, in its upper four bits, to get in."""
        self.settle()
        return self.vectors.processor_priority()

    @cython.final
    def deliverable(self) -> cython.int:
        """The vector that would get in now, or -1."""
        self.settle()
        return self.vectors.deliverable()

    @cython.final
    def external_asks(self) -> cython.bint:
        """Does the 8259 ask for an interrupt that reaches this processor?"""
        if self.external_wanted:
            return True
        if not self.table.wires[0]:
            return False
        return not self.is_on() or self.table.passes_external()

    @cython.final
    def update(self) -> cython.int:
        """Is the processor to be interrupted? Tell whoever waits for a change."""
        pending: cython.bint = self.external_asks() or (self.is_on() and self.deliverable() >= 0)
        if pending != self.pending:
            self.pending = pending
            self.on_change(bool(pending))
        return 0

    # ---- in

    @cython.final
    def request(self, vector: cython.uint, level: cython.bint) -> cython.int:
        """A fixed interrupt for this processor: pend it."""
        self.settle()
        self.withdraw()
        self.vectors.pend(vector, level)
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

    @cython.final
    def error(self, bit: cython.uint) -> cython.int:
        """Note an error; the first of its kind since the last write to the ESR interrupts."""
        if self.errors & bit:
            return 0
        self.errors |= bit
        vector: cython.uint = self.table.lvt[ERROR] & 0xFF
        if not self.table.is_masked(ERROR) and vector >= FIRST_LEGAL_VECTOR:
            self.request(vector, False)
        return 0

    # ---- the wires LINT0 and LINT1, and what the processor has within

    def set_wire(self, number: cython.uint, high):
        """Drive LINT0 or LINT1: `high` is a request."""
        now: cython.bint = bool(high)
        if not self.table.set_wire(number, now):
            return
        self.wire_changed(number, now)
        self.update()

    @cython.final
    def wire_changed(self, number: cython.uint, rising: cython.bint) -> cython.int:
        """A wire or its LVT entry changed."""
        if not self.is_on():
            if number == 1 and rising:
                self.on_nmi()
            return 0
        if self.table.wire_changed(number, rising):
            self.publish()
        return 0

    def local_interrupt(self, number: cython.uint):
        """The source of an LVT entry fires: 1 is the thermal sensor, 2 the performance counters.

        Raises `IndexError` for a number that is no entry's, 0 to 5.
        """
        self.table.fire(number)

    def timer_alarm(self):
        """An alarm that the ROM was asked for goes off at the timer's LVT entry."""
        self.local_interrupt(0)

    # ---- to the processor, and done

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
        if self.vectors.serve(asking) and self.eoi_address:
            self.memory.write32(self.eoi_address, 1)
            self.eoi_promised = True
        self.update()
        return asking

    @cython.final
    def end_of_interrupt(self) -> cython.int:
        """EOI: the highest vector in service is done."""
        self.withdraw()
        served: cython.int = self.vectors.end()
        if served < 0:
            return 0
        if self.vectors.is_level(served):
            number: cython.uint
            for number in range(2):
                if self.table.ended(number, served):
                    self.wire_changed(number, False)
            self.publish()
            self.bus.end_of_interrupt(int(served))
        return self.update()

    # ---- ends of interrupts without an exit, as KVM's MSR_KVM_PV_EOI_EN has them

    @cython.final
    def settle(self) -> cython.int:
        """If the guest has ended its interrupt by clearing the word, take note."""
        if self.eoi_promised and not self.memory.read32(self.eoi_address):
            self.eoi_promised = False
            self.end_of_interrupt()
        return 0

    @cython.final
    def withdraw(self) -> cython.int:
        """Somebody waits for the end of the interrupt in service: it must be told after all."""
        if self.eoi_promised:
            self.eoi_promised = False
            self.memory.write32(self.eoi_address, 0)
        return 0

    # ---- out

    @cython.final
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


def nothing(*_arguments):
    """Nobody listens."""
