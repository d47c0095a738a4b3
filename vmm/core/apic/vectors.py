"""The local APIC's vectors: requested, in service, level-triggered, and who comes first.

Intel SDM vol. 3, "Interrupt, Task, and Processor Priority": a vector's upper four bits
are its priority; what is in service, or TPR, keeps lower and equal ones out.
"""

from array import array

import cython

from vmm.core.saved import ARRAY, U32, Fields


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
class ApicVectors:
    """IRR, ISR and TMR, of 256 bits each, and the task priority.

    Vectors are 0 to 255, priorities as TPR has them.
    """

    SAVED = Fields(
        {ARRAY: "isr irr tmr", U32: "tpr"},
    )

    def __init__(self):
        self.isr = array("I", bytes(32))
        self.irr = array("I", bytes(32))
        self.tmr = array("I", bytes(32))
        self.tpr = 0

    def clear(self) -> cython.int:
        """The state after power-up."""
        i: cython.uint
        self.tpr = 0
        for i in range(8):
            self.isr[i] = self.irr[i] = self.tmr[i] = 0
        return 0

    def top(self, bits: cython.uint[::1]) -> cython.int:
        """The highest vector in a 256-bit register, or -1."""
        i: cython.int = 7
        while i >= 0:
            if bits[i]:
                return 32 * i + highest(bits[i])
            i -= 1
        return -1

    # ---- priorities

    def processor_priority(self) -> cython.uint:
        """PPR: what an interrupt must exceed, in its upper four bits, to get in."""
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

    # ---- the life of an interrupt

    def pend(self, vector: cython.uint, level: cython.bint) -> cython.int:
        """It is requested; `level` is its trigger."""
        bit: cython.uint = cython.cast(cython.uint, 1) << (vector & 31)
        word: cython.uint = vector >> 5
        self.irr[word] = self.irr[word] | bit
        if level:
            self.tmr[word] = self.tmr[word] | bit
        else:
            self.tmr[word] = self.tmr[word] & ~bit
        return 0

    def serve(self, vector: cython.uint) -> cython.bint:
        """It goes from requested to in service.

        True where its end is nobody else's business: no other is requested or in service,
        and it is edge-triggered.
        """
        bit: cython.uint = cython.cast(cython.uint, 1) << (vector & 31)
        word: cython.uint = vector >> 5
        self.irr[word] = self.irr[word] & ~bit
        alone: cython.bint = self.top(self.isr) < 0 and self.top(self.irr) < 0
        self.isr[word] = self.isr[word] | bit
        return alone and not self.tmr[word] & bit

    def end(self) -> cython.int:
        """The highest in service is done: which one, or -1."""
        serving: cython.int = self.top(self.isr)
        if serving < 0:
            return -1
        word: cython.uint = cython.cast(cython.uint, serving) >> 5
        bit: cython.uint = cython.cast(cython.uint, 1) << (serving & 31)
        self.isr[word] = self.isr[word] & ~bit
        return serving

    def is_level(self, vector: cython.uint) -> cython.bint:
        """Was its latest request level-triggered?"""
        return (self.tmr[vector >> 5] >> (vector & 31)) & 1 != 0

    # ---- state

    def save(self):
        """{name: number, or list of numbers}."""
        return {
            "tpr": int(self.tpr),
            "isr": list(self.isr),
            "irr": list(self.irr),
            "tmr": list(self.tmr),
        }

    def restore(self, state):
        """Take on what `save` answered; raises `KeyError` for what is missing."""
        self.tpr = state["tpr"]
        self.isr = array("I", state["isr"])
        self.irr = array("I", state["irr"])
        self.tmr = array("I", state["tmr"])
