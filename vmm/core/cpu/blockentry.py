"""Blocks of guest code entered: where time passes, and a run may stop.

An engine calls at each translated block, until that counts itself (`vmm.core.code.inline`).
"""

import cython

from vmm.core.code.blocks import BlockMeter
from vmm.core.code.blocktable import BlockTable
from vmm.core.code.inline import InlineCounter
from vmm.core.code.romcalls import RomCalls
from vmm.core.code.strings import StringSweep
from vmm.core.errors import StaleFetch
from vmm.core.run.stop import Stop

if not cython.compiled:
    from vmm.core.native import return_address

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
STOP_LIMIT = cython.declare(cython.uint, Stop.LIMIT)
STOP_DEADLINE = cython.declare(cython.uint, Stop.DEADLINE)
STOP_ERROR = cython.declare(cython.uint, Stop.ERROR)
STOP_INTERRUPT = cython.declare(cython.uint, Stop.INTERRUPT)
STOP_REQUEST = cython.declare(cython.uint, Stop.REQUEST)
STOP_PORT = cython.declare(cython.uint, Stop.PORT)
STOP_FORGET = cython.declare(cython.uint, Stop.FORGET)

# What BlockMeter.enter() answers when it wants a closer look.
SPECIAL = cython.declare(cython.uint, 1)
# The ROM's blocks.
IN_ROM = cython.declare(cython.uint, 1)
# What it answers of a block that accesses a port.
PORTS = cython.declare(cython.uint, 8)

# Words of BlockMeter.hot.
LEFT = cython.declare(cython.uint, 0)
SLOT = cython.declare(cython.uint, 1)
ENTERED = cython.declare(cython.uint, 2)


@cython.cclass
class BlockEntry:
    """One virtual CPU between its exits; what is made of it adds `ports`."""

    def __init__(self, cpu, memory, shadow, paging):
        self.cpu = cpu
        self.memory = memory
        self.paging = paging
        self.shadow = shadow
        rom = RomCalls(cpu, paging)
        self.table = BlockTable(cpu, memory, paging, shadow, rom)
        self.meter = BlockMeter(self.table, rom)
        self.keeper = self.table.keeper
        self.inline = InlineCounter(self.meter)
        self.strings = StringSweep(cpu, memory, shadow)
        self.irq_pending = False
        self.instruction_limit = 0xFFFFFFFFFFFFFFFF
        self.deadline = 0xFFFFFFFFFFFFFFFF
        self.stop_reason = 0
        self.error = None

    def block(self, address: cython.uint, size: cython.uint, place: cython.size_t) -> cython.bint:
        """A translated block is entered: the only place where time passes.

        `place` tells its translation from others.

        This is the short way through `enter_block`, for a block that is known and
        nothing but code. Such a block may count itself from now on, and the answer is true,
        unless a call of the ROM starts there.
        """
        key: cython.ulonglong = address | (cython.cast(cython.ulonglong, size) << 32)
        slot: cython.uint = self.table.first_slot(address, size)
        found: cython.ulonglong = self.table.blocks[2 * slot]
        while found and (found != key or self.table.places[slot] != place):
            slot = (slot + 1) & 0xFFFF
            found = self.table.blocks[2 * slot]
        if found:
            facts: cython.ulonglong = self.table.blocks[2 * slot + 1]
            count: cython.longlong = cython.cast(cython.longlong, facts & 0xFFFF)
            role: cython.uint = cython.cast(cython.uint, facts >> 16) & 0xFF
            if role <= IN_ROM and self.meter.hot[LEFT] > count:
                self.meter.hot[LEFT] -= count
                self.meter.hot[SLOT] = slot
                if role == IN_ROM:
                    self.meter.enter_rom(facts)
                return not (facts >> 24) & 0xFF
        self.enter_block(address, size, place)
        return False

    def called(
        self, address: cython.uint, size: cython.uint, engine: cython.size_t, at: cython.size_t
    ) -> cython.void:
        """A translated block has called, and goes on `at` there: no more, if it can do without."""
        if self.block(address, size, at) and self.inline.wanted:
            self.inline.put(at, engine)

    def late_block(self) -> cython.void:
        """A block has counted itself, and time is up: see to it as to any other."""
        key: cython.ulonglong = self.meter.take_back()
        self.enter_block(
            cython.cast(cython.uint, key & LOW_32),
            cython.cast(cython.uint, key >> 32),
            self.table.places[self.meter.current_slot()],
        )

    def enter_block(
        self, address: cython.uint, size: cython.uint, place: cython.size_t
    ) -> cython.void:
        """Count a block and see whether the run goes on, or a string can be swept."""
        if self.stop_reason and self.is_over():
            self.cpu.stop()
            return
        kind: cython.uint = self.meter.enter(address, size, place)
        if kind == SPECIAL:
            with cython.gil:
                self.attention(address)
            kind = self.meter.kind()
        count: cython.ulonglong = self.meter.count()
        now: cython.ulonglong = count + self.meter.charged_ns + self.meter.elsewhere_ns
        if self.stop_reason == STOP_FORGET:
            self.cpu.stop()
        elif count >= self.instruction_limit:
            self.stop_reason = STOP_LIMIT
            self.cpu.stop()
        elif now >= self.deadline:
            self.stop_reason = STOP_DEADLINE
            self.cpu.stop()
        elif self.irq_pending and self.cpu.can_interrupt():
            self.stop_reason = STOP_INTERRUPT
            self.cpu.stop()
        elif kind == PORTS:
            if self.needs_step(address):
                self.stop_reason = STOP_PORT
                self.cpu.stop()
        elif kind:
            room: cython.ulonglong = self.instruction_limit - count
            room = min(room, self.deadline - now)
            self.meter.hot[LEFT] -= self.strings.sweep(address, kind, room - 1)
        self.arm()

    def arm(self) -> cython.void:
        """Let blocks count themselves for as long as nothing has to be looked at between them.

        Due whenever the core has done something, since that may have changed how long this is.
        """
        self.meter.arm(
            self.instruction_limit, self.deadline, self.irq_pending or self.stop_reason != 0
        )

    def rearm(self):
        """The same, for a run loop."""
        self.arm()

    def needs_step(self, address: cython.uint) -> cython.bint:
        """Must the run stop before a block that accesses a port?"""
        with cython.gil:
            return self.ports.needs_step(address)

    def attention(self, address: cython.uint) -> cython.int:
        """The meter wants a closer look; errors end the run."""
        try:
            if self.meter.special(address):
                self.stop_reason = STOP_FORGET
        except Exception as error:  # noqa: BLE001 - it must not cross the engine's frames
            self.fail(error)
        return 0

    def before(self, address: cython.ulonglong, _size: cython.uint) -> cython.int:
        """The instruction at a linear address is next, and its flags are to be kept."""
        return self.keeper.keep(cython.cast(cython.uint, address & LOW_32), self.meter.count())

    # ---- stopping

    def is_over(self) -> cython.bint:
        """Has the run ended already, although the engine has not returned yet?"""
        return self.stop_reason == STOP_REQUEST or self.stop_reason == STOP_ERROR

    def halt(self, reason: cython.uint) -> cython.int:
        """Leave the engine after this exit."""
        self.stop_reason = reason
        self.cpu.stop()
        self.arm()
        return 0

    def request_stop(self, reason):
        """A device or another part of the monitor ends the run."""
        self.halt(reason)

    def fail(self, error):
        """Keep an exception until the engine has returned."""
        if isinstance(error, StaleFetch):
            self.cpu.flush_tlb()
            return
        if self.error is None:
            self.error = error
        self.halt(STOP_ERROR)

    def retranslate(self):
        """Drop what the engine has translated for what the run has stopped (`Stop.FORGET`).

        That is blocks in which the engine has to call from now on, or else all blocks.
        """
        sites = self.keeper.watch() if self.keeper.wanted else []
        for site in sites:
            if self.paging.walk(site) and self.memory.is_ram(self.paging.physical >> 12):
                self.cpu.forget_code(self.memory.host(self.paging.physical >> 12))
        if not sites:
            self.forget_blocks()

    def forget_blocks(self):
        """Start the table of blocks afresh, with all code translated anew."""
        self.cpu.forget_all_code()
        self.meter.forget()


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raw_block(
    engine: cython.size_t, address: cython.ulonglong, size: cython.uint, data: cython.p_void
) -> cython.void:
    """A translated block is entered: here, not in hooks.py, to become one function with `block`."""
    cython.cast(BlockEntry, data).called(
        cython.cast(cython.uint, address),
        size,
        engine,
        cython.cast(cython.size_t, return_address(0)),
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raw_late_block(hot: cython.pointer(cython.size_t)) -> cython.void:
    """A block that counts itself finds that time is up."""
    cython.cast(BlockEntry, cython.cast(cython.p_void, hot[ENTERED])).late_block()


def block_callback(entry: BlockEntry):
    """The address of what the compiled core has called at each block, until that counts itself."""
    callback = cython.cast(cython.size_t, cython.cast(cython.p_void, raw_block))
    late = cython.cast(cython.size_t, cython.cast(cython.p_void, raw_late_block))
    data = cython.cast(cython.size_t, cython.cast(cython.p_void, entry))
    entry.inline.prepare(callback, late, entry.cpu.question, data)
    return callback
