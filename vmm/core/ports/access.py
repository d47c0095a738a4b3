"""Ports: what answers an access, and who may make it.

A ring without the right to every port is let through its code step by step wherever a
block accesses one, since the engine never asks (`vmm.core.ports.right`).
"""

import cython

from vmi.doorbell import PORT, SIGNATURE
from vmi.reflection import Access
from vmm.core.code.blocks import BlockMeter
from vmm.core.counters import Counters
from vmm.core.cpu.cpustate import CpuState
from vmm.core.cpu.delivery import Delivery
from vmm.core.errors import StaleFetch, Unsupported
from vmm.core.event import Event
from vmm.core.paravirt.doorbell import DoorbellPort
from vmm.core.ports.filters import PortFilters
from vmm.core.ports.reflector import Reflector
from vmm.core.ports.right import PortRight
from vmm.core.saved import FLAG, Fields

IO = cython.declare(cython.uint, Event.IO)
EXCEPTION = cython.declare(cython.uint, Event.EXCEPTION)
GENERAL_PROTECTION = cython.declare(cython.uint, 13)

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
OUT = cython.declare(cython.uint, Access.OUT)
STRING = cython.declare(cython.uint, Access.STRING)
HLT_OPCODE = cython.declare(cython.uint, 0xF4)
EAX = cython.declare(cython.uint, 0)
ECX = cython.declare(cython.uint, 1)
TRAP_FLAG = cython.declare(cython.uint, 0x100)
# No linear address.
NOWHERE = cython.declare(cython.ulonglong, 1 << 32)

DOORBELL_PORT = cython.declare(cython.uint, PORT)
DOORBELL_SIGNATURE = cython.declare(cython.uint, SIGNATURE)

# Virtual time that an access takes on top of its instruction: what a kernel that polls
# must see pass (measured on a Linux boot that spins on ports and RDTSC).
PORT_NS = cython.declare(cython.ulonglong, 400)

WRITE_DIRECTION = cython.declare(cython.uint, 0x1000000)


@cython.final
@cython.cclass
class PortAccess:
    """Serves the port accesses of one CPU.

    The doorbell's port is the core's where `has_doorbell`; `filters` see reads first, and
    `bus` (`read(port, size)`, `write(port, size, value)`) has the rest.
    """

    SAVED = Fields(
        {FLAG: "met"},
        wiring="cpu counters meter delivery doorbell right bus has_doorbell reflector",
        elsewhere="filters",
        transient="step_at stepping",
    )

    def __init__(
        self,
        cpu: CpuState,
        counters: Counters,
        meter: BlockMeter,
        delivery: Delivery,
        doorbell: DoorbellPort,
        right: PortRight,
        reflector: Reflector,
        bus,
    ):
        self.cpu = cpu
        self.counters = counters
        self.meter = meter
        self.delivery = delivery
        self.doorbell = doorbell
        self.right = right
        self.reflector = reflector
        self.bus = bus
        self.filters = PortFilters()
        self.has_doorbell = True
        self.step_at = NOWHERE
        self.stepping = self.met = False

    def read(self, port: cython.uint, size: cython.uint) -> cython.uint:
        """IN."""
        self.meter.charged_ns += PORT_NS
        eip: cython.uint = self.cpu.eip()
        self.check_right(port, size, eip)
        if port == DOORBELL_PORT and size == 4 and self.has_doorbell:
            self.counters.count(IO, port | (size << 16), eip)
            return DOORBELL_SIGNATURE
        if self.filters.answers(port, size, self.meter.now()):
            self.counters.count(IO, port | (size << 16), eip)
            return self.filters.value
        self.counters.count_heavy(IO, port | (size << 16), eip)
        if self.reflector.wants(port):
            self.reflector.learn(eip)
        value = int(self.bus.read(int(port), int(size)))
        # A 32-bit shift of a C int by 32 would leave nothing.
        mask: cython.ulonglong = (cython.cast(cython.ulonglong, 1) << (8 * size)) - 1
        return cython.cast(cython.uint, value & mask)

    def write(self, port: cython.uint, size: cython.uint, value: cython.uint) -> cython.bint:
        """OUT; answers whether it rang the doorbell."""
        self.meter.charged_ns += PORT_NS
        cpu: CpuState = self.cpu
        eip: cython.uint = cpu.eip()
        self.check_right(port, size, eip)
        if port == DOORBELL_PORT and size == 4 and self.has_doorbell:
            cpu.set_reg(EAX, self.doorbell.ring(value, cpu.reg(ECX), eip))
            return True
        self.counters.count_heavy(IO, port | (size << 16) | WRITE_DIRECTION, eip)
        if self.reflector.wants(port):
            self.reflector.learn(eip)
        self.bus.write(int(port), int(size), int(value))
        return False

    def stopped(self, eip: cython.uint) -> cython.bint:
        """The run stopped where the engine ends blocks for the reflector; false for a true HLT."""
        reflector: Reflector = self.reflector
        cpu: CpuState = self.cpu
        linear: cython.uint = cpu.linear(eip)
        if linear not in reflector.sites:
            return False
        reflector.code.load(eip)
        if not reflector.decode():
            reflector.drop(linear)
            return reflector.code.byte(0) != HLT_OPCODE
        if reflector.patch(eip):
            return True
        if reflector.reflect(eip):
            self.meter.charged_ns += PORT_NS
            self.meter.pass_one()
            return True
        if reflector.access & STRING or cpu.cpl() or cpu.eflags() & TRAP_FLAG:
            # The engine does these as it did before.
            reflector.drop(linear)
            return True
        port: cython.uint = reflector.port
        size: cython.uint = reflector.size
        length: cython.uint = reflector.length
        kept: cython.uint = cpu.reg(EAX)
        # A 32-bit shift of a C int by 32 would leave nothing.
        mask: cython.ulonglong = (cython.cast(cython.ulonglong, 1) << (8 * size)) - 1
        if reflector.access & OUT:
            self.write(port, size, cython.cast(cython.uint, kept & mask))
        else:
            value: cython.ulonglong = self.read(port, size)
            cpu.set_reg(EAX, cython.cast(cython.uint, (kept & ~mask) | (value & mask)))
        cpu.set_eip(cython.cast(cython.uint, (eip + length) & LOW_32))
        cpu.clear_interrupt_shadow()
        self.meter.pass_one()
        return True

    def check_right(self, port: cython.uint, size: cython.uint, eip: cython.uint):
        """An access without right gets here only from where blocks are not watched: the ROM."""
        if self.cpu.cpl() and not self.right.may_access(port, size):
            raise Unsupported(f"access to port {port:#x} in ring {self.cpu.cpl()} at {eip:#010x}")

    def needs_step(self, address: cython.uint) -> cython.bint:
        """Must the run stop before the block at this linear address, which accesses a port?"""
        return address != self.step_at and not self.right.is_privileged()

    def begin_step(self) -> cython.int:
        """Before a block that accesses a port: let one instruction pass, or none."""
        self.met = False
        eip: cython.uint = self.cpu.eip()
        if self.right.is_privileged():
            return 0
        try:
            refused: cython.bint = self.right.refuses(eip)
        except StaleFetch:
            return self.cpu.flush_tlb()
        if refused:
            self.counters.count(EXCEPTION, GENERAL_PROTECTION, eip)
            return self.delivery.deliver(GENERAL_PROTECTION, 0, False, eip)
        self.step_at = self.cpu.linear(eip)
        flags: cython.uint = self.cpu.eflags()
        if not flags & TRAP_FLAG:
            self.stepping = True
            self.cpu.set_eflags(flags | TRAP_FLAG)
        return 0

    def end_step(self) -> cython.int:
        """The step is over, whatever came of it."""
        self.step_at = NOWHERE
        if self.stepping:
            self.stepping = False
            self.cpu.set_eflags(self.cpu.eflags() & ~TRAP_FLAG)
        return 0
