"""The local APIC's timer: one-shot, periodic, or TSC deadline, on virtual time.

Intel SDM vol. 3, "APIC Timer". Its input clock is one count a nanosecond, and so is the
time-stamp counter.
"""

import cython

from vmm.core.apic.lvt import LocalVectorTable
from vmm.core.apicmessage import DeliveryMode
from vmm.core.saved import FLAG, U32, U64, Fields, Timer

TIMER = cython.declare(cython.uint, 0)
FIXED = cython.declare(cython.uint, DeliveryMode.FIXED)
PERIODIC = cython.declare(cython.uint, 1)
DEADLINE = cython.declare(cython.uint, 2)

# A period shorter than a few instructions would leave the guest no time to execute any:
# such a timer interrupts this often, whatever its count.
LEAST_PERIOD_NS = cython.declare(cython.ulonglong, 2000)


@cython.final
@cython.cclass
class ApicTimer:
    """Counts down, and has its entry of `table` make an interrupt.

    `timers` and `now` are virtual time, in nanoseconds. `is_on` is false while
    IA32_APIC_BASE switches the APIC off: nothing expires then.
    """

    SAVED = Fields(
        {
            Timer("expired", "timers"): "key",
            U32: "divide initial",
            U64: "left started fired deadline due",
            FLAG: "is_on",
        },
        wiring="table timers now",
    )

    def __init__(self, table: LocalVectorTable, timers, now):
        self.table = table
        self.timers = timers
        self.now = now
        self.is_on = True
        self.key = None
        self.due = 0
        self.clear()

    def clear(self) -> cython.int:
        """Stopped, as after power-up; `arm` makes that known."""
        self.divide = 0
        self.initial = 0
        self.started = self.left = 0
        self.deadline = 0
        self.fired = 0
        return 0

    def stop(self) -> cython.int:
        """Another mode stops the timer."""
        self.initial = 0
        self.left = 0
        self.deadline = 0
        return 0

    def step(self) -> cython.ulonglong:
        """Nanoseconds a count: 1 to 128."""
        code: cython.uint = ((self.divide >> 1) & 4) | (self.divide & 3)
        return 1 if code == 7 else cython.cast(cython.ulonglong, 2) << code

    def start(self, count: cython.uint) -> cython.int:
        """The initial count starts the timer, zero stops it; no effect in deadline mode."""
        if self.table.timer_mode() == DEADLINE:
            return 0
        self.catch_up()
        self.initial = count
        self.left = count
        self.started = self.now()
        self.fired = 0
        return self.arm()

    def set_divide(self, value: cython.uint) -> cython.int:
        """What is left keeps counting, at the new rate."""
        self.catch_up()
        self.left = self.current_count()
        self.started = self.now()
        self.divide = value & 0xB
        return self.arm()

    def current_count(self) -> cython.uint:
        """What is left, at this moment."""
        mode: cython.uint = self.table.timer_mode()
        if not self.initial or mode == DEADLINE:
            return 0
        now: cython.ulonglong = self.now()
        passed: cython.ulonglong = (now - self.started) // self.step()
        if passed < self.left:
            return cython.cast(cython.uint, self.left - passed)
        if mode != PERIODIC:
            return 0
        return cython.cast(cython.uint, self.initial - (passed - self.left) % self.initial)

    def catch_up(self) -> cython.int:
        """An expiry whose time has come is not lost to what the guest does right after it."""
        if self.key is not None and self.due <= self.now():
            self.timers.cancel(self.key)
            self.expired()
        return 0

    def arm(self) -> cython.int:
        """Put the next expiry on virtual time; none while nobody would hear of it."""
        if self.key is not None:
            self.timers.cancel(self.key)
            self.key = None
        if self.table.is_masked(TIMER) or not self.is_on:
            return 0
        mode: cython.uint = self.table.timer_mode()
        if mode == DEADLINE:
            if not self.deadline:
                return 0
            self.due = self.deadline
        else:
            if not self.initial:
                return 0
            now: cython.ulonglong = self.now()
            self.due = self.started + self.left * self.step()
            if self.due <= now:
                if mode != PERIODIC:
                    return 0
                period: cython.ulonglong = self.initial * self.step()
                self.due += ((now - self.due) // period + 1) * period
                self.due = max(self.due, self.fired + LEAST_PERIOD_NS)
        self.key = self.timers.at(int(self.due), self.expired)
        return 0

    def expired(self):
        """The timer ran out."""
        self.key = None
        self.fired = self.now()
        if self.table.timer_mode() == DEADLINE:
            self.deadline = 0
        self.table.accept(FIXED, int(self.table.lvt[TIMER] & 0xFF), False)
        self.arm()

    def set_deadline(self, value: cython.ulonglong) -> cython.int:
        """IA32_TSC_DEADLINE: arms the timer in that mode, 0 disarms it."""
        self.catch_up()
        if self.table.timer_mode() == DEADLINE:
            self.deadline = value
            self.arm()
        return 0

    # ---- state

    def save(self):
        """{name: number}; times are nanoseconds of virtual time."""
        return {
            "divide": int(self.divide),
            "initial": int(self.initial),
            "left": int(self.left),
            "started": int(self.started),
            "fired": int(self.fired),
            "deadline": int(self.deadline),
        }

    def restore(self, state):
        """Take on what `save` answered; raises `KeyError` for what is missing."""
        self.divide = state["divide"]
        self.initial = state["initial"]
        self.left = state["left"]
        self.started = state["started"]
        self.fired = state["fired"]
        self.deadline = state["deadline"]
