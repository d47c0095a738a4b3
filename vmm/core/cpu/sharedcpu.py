"""A virtual CPU with a host thread of its own.

Guest code runs in parallel with that of the other CPUs; see `vmm.core.cpu.gate`. Each call from
the engine leaves guest code, takes the turn, and stops the others unless the exit concerns
nothing but its own CPU.

**Locked instructions.** Unicorn 2.1.4 translates for one thread: a LOCK prefix gives a load and
a store. Its QEMU can do better where a block is translated with CF_PARALLEL, which
Unicorn never asks for; but the flags that the next block is looked up or translated with can
be given in the CPU object, for once, and so each block asks for the next one. A jump that is
chained stays among such blocks. An access that crosses its natural alignment has no host
instruction; QEMU leaves the block and expects it to be repeated alone. The block then comes
again and again, and is run while all others stand still; then its translation is dropped, since
a jump through a register looks for such blocks, and must never find one.
"""

import ctypes

import cython

from vmi.doorbell import PORT
from vmm.core.cpu.gate import Gate
from vmm.core.cpu.vcpu import Vcpu

if not cython.compiled:
    from vmm.core.native import relax

# cflags of a translation block, QEMU 5.0 include/exec/exec-all.h.
CF_PARALLEL = cython.declare(cython.uint, 0x00080000)
# The CPU object's way to say that nothing was asked for.
NO_FLAGS = cython.declare(cython.uint, 0xFFFFFFFF)

# Every so many PAUSEs, less one, the host may run another thread.
SPINS = cython.declare(cython.uint, 31)

# How far `switch` goes: not at all, the shadow tables, and the code that was translated.
AS_IT_IS = cython.declare(cython.int, 0)
TABLES = cython.declare(cython.int, 1)
CODE_TOO = cython.declare(cython.int, 2)

# Exits, by AMD's codes.
EXIT_PAGE_FAULT = cython.declare(cython.uint, 0x14E)
EXIT_SWINT = cython.declare(cython.uint, 0x175)
EXIT_PAUSE = cython.declare(cython.uint, 0x177)

DOORBELL_PORT = cython.declare(cython.uint, PORT)

# A block that comes so often in a row may be waiting to be run alone, if it starts with
# LOCK, or with XCHG, which locks by itself.
REPEATS = cython.declare(cython.uint, 1 << 10)
LONGEST_PREFIX = 8
PREFIXES = b"\x26\x2e\x36\x3e\x64\x65\x66\x67"
LOCKED = (b"\xf0", b"\x86", b"\x87")


@cython.final
@cython.cclass
class SharedCpu:
    """One CPU behind the gate.

    `next_flags` is the host address of the engine's flags for the next block. `switch(vcpu,
    how)` hears, with the turn, that a CPU works in the core, and brings what it runs on up to
    date: how far, is one of `AS_IT_IS`, `TABLES` and `CODE_TOO`. `tell(vcpu)` lets the others
    know that they must look at what they run on.
    """

    def __init__(self, vcpu: Vcpu, gate: Gate, next_flags, switch, tell):
        self.vcpu = vcpu
        self.gate = gate
        self.index = vcpu.index
        self.switch = switch
        self.tell = tell
        self.seen = self.generation = self.code_changes = 0
        self.next_flags = (
            memoryview((ctypes.c_uint * 1).from_address(next_flags)).cast("B").cast("I")
        )
        self.address = self.repeats = 0
        self.wants_alone = self.alone = self.attention = False
        self.keep = []

    # ---- asked by the run loop

    def run(self, engine):
        """Let the engine run; called, and returns, with the turn."""
        self.next_flags[0] = CF_PARALLEL
        self.repeats = 0
        self.go()
        try:
            engine.run(self.vcpu.cpu.eip())
        finally:
            with cython.nogil:
                self.leave()
            self.gate.acquire()

    def run_alone(self, engine):
        """The same for a few instructions while all other CPUs stand still."""
        self.gate.stop_others(self.index)
        try:
            self.take(True, True)
            self.wants_alone = False
            self.alone = True
            self.next_flags[0] = NO_FLAGS
            try:
                engine.run(self.vcpu.cpu.eip())
            finally:
                self.alone = False
                # No block may find what was translated for one thread.
                self.vcpu.cpu.forget_all_code()
                self.give(True)
        finally:
            self.gate.go_on()

    def look(self):
        """Have the CPU come out before its next block, wherever it is; with the turn."""
        self.vcpu.instruction_limit = 0
        self.attention = True

    def attend(self):
        """Have it notice what has changed of its deadline or its interrupt line."""
        self.attention = True

    # ---- in and out of the core

    def leave(self) -> cython.void:
        """Guest code is left."""
        if not self.alone:
            self.gate.leave(self.index)

    def take(self, exclusive: cython.bint, serializing: cython.bint) -> cython.int:
        """Work in the core, with the turn: time goes on where it is, for this CPU too.

        A processor need not see code that another one has changed before an instruction, or an
        interrupt, that is `serializing` (SDM vol. 3, section 8.1.3).
        """
        self.tell_time()
        self.gate.works[self.index] += 1
        how: cython.int = AS_IT_IS
        if exclusive:
            others: cython.ulonglong = self.gate.others(self.index)
            if others != self.seen or self.vcpu.cpu.tlb_behind:
                # What was seen without the code is to be seen again.
                how = CODE_TOO if serializing else TABLES
                if serializing:
                    self.seen = others
            self.generation = self.vcpu.shadow.pages.generation
            self.code_changes = self.changes()
        self.switch(self.vcpu, how)
        return 0

    def give(self, exclusive: cython.bint) -> cython.int:
        """Work there no more."""
        self.gate.clock = max(self.gate.clock, self.vcpu.meter.now())
        if exclusive and (
            self.generation != self.vcpu.shadow.pages.generation
            or self.code_changes != self.changes()
        ):
            self.tell(self.vcpu)
        return 0

    def tell_time(self) -> cython.int:
        """The CPU's clock and the machine's become the later of the two."""
        now: cython.ulonglong = self.vcpu.meter.now()
        if now < self.gate.clock:
            self.vcpu.meter.take_over(self.gate.clock)
        else:
            self.gate.clock = now
        return 0

    def changes(self) -> cython.ulonglong:
        """How often code was stored to, anywhere."""
        pages = self.vcpu.shadow.pages
        return 0 if pages.code is None else pages.code.stores

    def go(self) -> cython.int:
        """Into guest code, and give the turn back: nobody can have closed the gate."""
        self.next_flags[0] = CF_PARALLEL
        self.repeats = 0
        self.gate.works[self.index] += 1
        self.gate.inside[16 * self.index] = 1
        self.gate.release()
        return 0

    def begin(self, exclusive: cython.bint, serializing: cython.bint) -> cython.int:
        """Take the turn; stop the others as well if `exclusive`."""
        if not self.alone:
            self.gate.acquire()
            if exclusive:
                self.gate.stop_others(self.index)
            try:
                self.take(exclusive, serializing)
            except Exception as error:  # noqa: BLE001 - the turn must be given back
                self.vcpu.fail(error)
        return 0

    def end(self, exclusive: cython.bint) -> cython.int:
        """Back to guest code."""
        if self.alone:
            self.vcpu.arm()
            return 0
        self.give(exclusive)
        if exclusive:
            self.gate.go_on()
        if self.vcpu.cpu.tlb_behind:
            # Others changed what this CPU runs on while it waited for its turn.
            self.vcpu.instruction_limit = 0
        self.vcpu.arm()
        return self.go()

    # ---- callbacks

    def block(self, address: cython.uint, size: cython.uint, place: cython.size_t) -> cython.void:
        """A translated block is entered, as `BlockEntry.block` has it."""
        if self.alone:
            self.vcpu.block(address, size, place)
            return
        if self.gate.is_closed():
            self.park()
        self.next_flags[0] = CF_PARALLEL
        if address != self.address:
            self.address = address
            self.repeats = 0
        else:
            self.repeats += 1
            if self.repeats == REPEATS:
                with cython.gil:
                    self.repeated(address)
        if self.attention:
            self.attention = False
            self.vcpu.arm()
        self.vcpu.block(address, size, place)

    def repeated(self, address: cython.uint) -> cython.int:
        """A block comes again and again: is it a locked instruction that must be run alone?"""
        code = self.vcpu.paging.read(address, LONGEST_PREFIX).lstrip(PREFIXES)
        if code[:1] in LOCKED:
            self.wants_alone = True
            self.look()
        return 0

    def park(self) -> cython.void:
        """Somebody has closed the gate: wait, then see whether what we run on has changed."""
        self.gate.leave(self.index)
        while not (self.gate.wait_shortly() and self.gate.enter(self.index)):
            with cython.gil:
                self.sleep()
        if self.vcpu.cpu.tlb_behind:
            self.vcpu.instruction_limit = 0
            self.attention = True

    def sleep(self) -> cython.int:
        """Until whoever has the turn gives it back."""
        self.gate.acquire()
        self.gate.release()
        return 0

    def serve(self, number: cython.uint) -> cython.int:
        """An exit that may concern others."""
        self.begin(True, number != EXIT_PAGE_FAULT and number != EXIT_SWINT)
        self.serve_alone(number)
        return self.end(True)

    def serve_alone(self, number: cython.uint) -> cython.int:
        """An exit, with whatever it needs in hand."""
        try:
            self.vcpu.counters.begin()
            self.vcpu.exited(number)
            self.vcpu.counters.end()
        except Exception as error:  # noqa: BLE001 - it must not cross the engine's frames
            self.vcpu.fail(error)
        return 0

    def serve_own(self, number: cython.uint) -> cython.int:
        """An exit that concerns this CPU, the clock and nobody else: the turn is not needed."""
        if self.vcpu.after_exit is not None:
            with cython.nogil:
                self.leave()
            return self.serve(number)
        if not self.alone:
            self.vcpu.meter.leave_at(self.vcpu.cpu.linear(self.vcpu.cpu.eip()))
            self.tell_time()
        if number == EXIT_PAUSE and self.vcpu.spins & SPINS == SPINS:
            # It waits for another CPU, which may be waiting for this host processor.
            with cython.nogil:
                relax(0)
        self.serve_alone(number)
        if not self.alone:
            self.next_flags[0] = CF_PARALLEL
            self.repeats = 0
            self.gate.clock = max(self.gate.clock, self.vcpu.meter.now())
        self.vcpu.arm()
        return 0

    def port_in(self, port: cython.uint, size: cython.uint) -> cython.uint:
        """IN."""
        value: cython.uint = 0
        self.begin(port == DOORBELL_PORT, False)
        try:
            self.vcpu.counters.begin()
            value = self.vcpu.port_in(port, size)
            self.vcpu.counters.end()
        except Exception as error:  # noqa: BLE001 - as above
            self.vcpu.fail(error)
        self.end(port == DOORBELL_PORT)
        return value

    def port_out(self, port: cython.uint, size: cython.uint, value: cython.uint) -> cython.int:
        """OUT."""
        exclusive: cython.bint = port == DOORBELL_PORT or self.vcpu.after_exit is not None
        self.begin(exclusive, False)
        try:
            self.vcpu.counters.begin()
            self.vcpu.port_out(port, size, value)
            self.vcpu.counters.end()
        except Exception as error:  # noqa: BLE001 - as above
            self.vcpu.fail(error)
        return self.end(exclusive)

    def system_call(self, sysenter: cython.bint) -> cython.int:
        """SYSENTER, or SYSCALL."""
        self.begin(True, False)
        try:
            if sysenter:
                self.vcpu.sysenter()
            else:
                self.vcpu.syscall()
        except Exception as error:  # noqa: BLE001 - as above
            self.vcpu.fail(error)
        return self.end(True)

    def mmio_read(self, offset, size):
        """A load from a physical address without RAM."""
        with cython.nogil:
            self.leave()
        self.begin(True, False)
        try:
            return self.vcpu.mmio_read(offset, size)
        finally:
            self.end(True)

    def mmio_write(self, offset, size, value):
        """A store to one."""
        with cython.nogil:
            self.leave()
        self.begin(True, False)
        try:
            self.vcpu.mmio_write(offset, size, value)
        finally:
            self.end(True)
