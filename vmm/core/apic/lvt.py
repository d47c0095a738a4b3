"""The local vector table: which interrupt each of the APIC's own sources makes.

Intel SDM vol. 3, "Local Vector Table". The sources are the timer, the thermal sensor, the
performance counters, the wires LINT0 and LINT1, and the APIC's errors.
"""

from array import array

import cython

from vmm.core.apicmessage import DeliveryMode
from vmm.core.saved import ARRAY, Fields

MASKED = cython.declare(cython.uint, 0x10000)
LEVEL_TRIGGERED = cython.declare(cython.uint, 0x8000)
REMOTE_IRR = cython.declare(cython.uint, 0x4000)
TIMER_MODE_SHIFT = cython.declare(cython.uint, 17)
# Timer, thermal sensor, performance counters, LINT0, LINT1, error; delivery status and
# remote IRR are not the guest's to write.
WRITABLE = (0x700FF, 0x107FF, 0x107FF, 0x1A7FF, 0x1A7FF, 0x100FF)

TIMER = cython.declare(cython.uint, 0)
PERFORMANCE = cython.declare(cython.uint, 2)
LINT0 = cython.declare(cython.uint, 3)

FIXED = cython.declare(cython.uint, DeliveryMode.FIXED)
NMI = cython.declare(cython.uint, DeliveryMode.NMI)
INIT = cython.declare(cython.uint, DeliveryMode.INIT)
EXTINT = cython.declare(cython.uint, DeliveryMode.EXTINT)


@cython.final
@cython.cclass
class LocalVectorTable:
    """Six entries, numbered as they lie from 0x320 up, and the two wires.

    `accept(delivery, vector, level)` takes the interrupts, and answers whether it did.
    """

    SAVED = Fields(
        {ARRAY: "lvt wires"},
        wiring="accept writable",
    )

    def __init__(self, accept):
        self.accept = accept
        self.lvt = array("I", bytes(24))
        self.writable = array("I", WRITABLE)
        self.wires = array("I", bytes(8))

    def mask_all(self, clear: cython.bint) -> cython.int:
        """Mask every entry; `clear` also forgets the rest of it."""
        i: cython.uint
        for i in range(6):
            self.lvt[i] = MASKED if clear else self.lvt[i] | MASKED
        return 0

    def write(
        self, number: cython.uint, value: cython.uint, keep_masked: cython.bint
    ) -> cython.bint:
        """The guest writes an entry; true if that is the timer's and changes its mode."""
        before: cython.uint = self.lvt[number]
        value &= self.writable[number]
        if keep_masked:
            value |= MASKED
        if value & LEVEL_TRIGGERED:
            value |= before & REMOTE_IRR
        self.lvt[number] = value
        return number == TIMER and ((before ^ value) >> TIMER_MODE_SHIFT & 3) != 0

    def timer_mode(self) -> cython.uint:
        """One-shot, periodic, or deadline: 0 to 2."""
        return (self.lvt[TIMER] >> TIMER_MODE_SHIFT) & 3

    def is_masked(self, number: cython.uint) -> cython.bint:
        """Is this entry?"""
        return (self.lvt[number] & MASKED) != 0

    def passes_external(self) -> cython.bint:
        """Does LINT0 hand on what the 8259s ask for?"""
        entry: cython.uint = self.lvt[LINT0]
        return not entry & MASKED and (entry >> 8) & 7 == EXTINT

    # ---- wires

    def set_wire(self, number: cython.uint, high: cython.bint) -> cython.bint:
        """Drive LINT0 or LINT1; false if it was so before."""
        if high == (self.wires[number] != 0):
            return False
        self.wires[number] = 1 if high else 0
        return True

    def wire_changed(self, number: cython.uint, rising: cython.bint) -> cython.bint:
        """LINT0 or LINT1, or its entry, has changed; true where that changes its remote IRR."""
        entry: cython.uint = self.lvt[LINT0 + number]
        if entry & MASKED or not self.wires[number]:
            return False
        mode: cython.uint = (entry >> 8) & 7
        if mode == FIXED:
            # LINT1 is always edge-triggered.
            if entry & LEVEL_TRIGGERED and number == 0:
                if not entry & REMOTE_IRR and self.accept(FIXED, entry & 0xFF, True):
                    self.lvt[LINT0] = entry | REMOTE_IRR
                    return True
            elif rising:
                self.accept(FIXED, entry & 0xFF, False)
        elif rising and (mode == NMI or mode == INIT):
            self.accept(mode, 0, False)
        return False

    def ended(self, number: cython.uint, vector: cython.uint) -> cython.bint:
        """A level-triggered vector has ended: was it the one of LINT0 or LINT1?"""
        entry: cython.uint = self.lvt[LINT0 + number]
        if not entry & REMOTE_IRR or entry & 0xFF != vector:
            return False
        self.lvt[LINT0 + number] = entry & ~REMOTE_IRR
        return True

    # ---- the other sources

    def fire(self, number: cython.uint) -> cython.int:
        """The source of an entry asks for its interrupt.

        The performance counters mask their entry (SDM, "Local Vector Table").
        """
        entry: cython.uint = self.lvt[number]
        if entry & MASKED:
            return 0
        self.accept((entry >> 8) & 7, int(entry & 0xFF), False)
        if number == PERFORMANCE:
            self.lvt[number] = entry | MASKED
        return 0

    # ---- state

    def save(self):
        """{name: list of numbers}."""
        return {"lvt": list(self.lvt), "wires": list(self.wires)}

    def restore(self, state):
        """Take on what `save` answered; raises `KeyError` for what is missing."""
        self.lvt = array("I", state["lvt"])
        self.wires = array("I", state["wires"])
