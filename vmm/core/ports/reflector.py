"""Exit reflection: port accesses that a handler in the guest's ROM answers, not the device.

The engine tells of an access in the middle of a block, where the guest cannot be sent elsewhere.
So the first access that an instruction makes to an offered port goes to the device, and
the instruction becomes a *site*: from then on blocks end before it, and the run stops there.
What cannot be reflected at a site is served by the device, as without.

Everything is checked before anything of the guest changes: flat segments, ring 0, a stack
and a buffer in memory, and the handler where the ROM said it is. The frame is that of
vmi/reflection.py.
"""

from array import array

import cython

from vmi.reflection import CALL_LENGTH, LENGTH_SHIFT, PORT_SHIFT, TABLE, Access
from vmm.core.code.blocks import BlockMeter
from vmm.core.code.fetch import InstructionBytes
from vmm.core.counters import Counters
from vmm.core.cpu.cpustate import CpuState
from vmm.core.event import Event
from vmm.core.memory import GuestMemory
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadow import ShadowMmu
from vmm.core.saved import Fields

# A literal above 2**31 - 1 would be a Python object in compiled code.
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
WHOLE = cython.declare(cython.uint, 0xFFFFFFFF)
REFLECT = cython.declare(cython.uint, Event.REFLECT)
OUT = cython.declare(cython.uint, Access.OUT)
STRING = cython.declare(cython.uint, Access.STRING)
REPEATED = cython.declare(cython.uint, Access.REPEATED)
LENGTH = cython.declare(cython.uint, LENGTH_SHIFT)
PORT = cython.declare(cython.uint, PORT_SHIFT)
NEAR_CALL = cython.declare(cython.uint, 0xE8)
NOP = cython.declare(cython.uint, 0x90)
CALL_BYTES = cython.declare(cython.uint, CALL_LENGTH)
OFFSETS = len(TABLE)
# Of no effect here: INS stores to ES always, and OUTS loads from DS anyway.
DS_PREFIX = cython.declare(cython.uint, 0x3E)
IMMEDIATE = cython.declare(cython.uint, 0xE4)
WRITE_DIRECTION = cython.declare(cython.uint, 0x1000000)

ECX = cython.declare(cython.uint, 1)
EDX = cython.declare(cython.uint, 2)
ESP = cython.declare(cython.uint, 4)
ESI = cython.declare(cython.uint, 6)
EDI = cython.declare(cython.uint, 7)
ES = cython.declare(cython.uint, 0)
CS = cython.declare(cython.uint, 1)
SS = cython.declare(cython.uint, 2)
DS = cython.declare(cython.uint, 3)
DIRECTION_FLAG = cython.declare(cython.uint, 0x400)
# TF and VM: stepped, or not of ring 0.
NEVER = cython.declare(cython.uint, 0x20100)
# IF, TF, NT, RF, VM: what an interrupt gate clears.
CLEARED = cython.declare(cython.uint, 0x34300)
BIG = cython.declare(cython.uint, 0x400000)

FRAME_WORDS = cython.declare(cython.uint, 4)
MOST_SITES = cython.declare(cython.uint, 256)
MOST_STRING = cython.declare(cython.ulonglong, 0x20000)
PORTS = cython.declare(cython.uint, 0x10000)


@cython.final
@cython.cclass
class Reflector:
    """Reflects the accesses of one CPU; off until a ROM's handler is `bind`-ed.

    `sites` holds the linear addresses where the run stops; `break_at(addresses)` has the
    engine end blocks before them, and is none where the user does not want reflection.
    `patched` counts the instructions that were replaced by calls of the ROM.
    """

    # Off, it has no state; a machine that has it on is not saved.
    SAVED = Fields(
        wiring="cpu memory paging shadow counters meter code break_at",
        host="on image image_physical offsets by_port sites patched",
        transient="places access port size length by_register",
    )

    def __init__(
        self,
        cpu: CpuState,
        memory: GuestMemory,
        paging: GuestPaging,
        shadow: ShadowMmu,
        counters: Counters,
        meter: BlockMeter,
        code: InstructionBytes,
    ):
        self.cpu = cpu
        self.memory = memory
        self.paging = paging
        self.shadow = shadow
        self.counters = counters
        self.meter = meter
        self.code = code
        self.on = False
        self.image = self.image_physical = 0
        self.offsets = array("I", bytes(4 * OFFSETS))
        self.by_port = bytearray(int(PORTS))
        self.sites = set()
        self.break_at = None
        self.places = array("I", bytes(4 * 4))
        self.access = self.port = self.size = self.length = 0
        self.by_register = False
        self.patched = 0

    # ---- who reflects what

    def bind(self, image, physical, offsets):
        """The ROM's image is at this virtual address, which is now at this physical one.

        `offsets` is its table (`vmi.reflection.TABLE`).
        """
        self.image, self.image_physical = image & 0xFFFFFFFF, physical
        self.offsets = array("I", offsets)
        self.on = True

    def offer(self, ports):
        """Reflect accesses that begin at these ports."""
        for port in ports:
            self.by_port[port] = 1

    def withdraw(self, ports):
        """Reflect them no more: the ROM cannot answer."""
        for port in ports:
            self.by_port[port] = 0

    def wants(self, port: cython.uint) -> cython.bint:
        """Is this access one to reflect, the next time?"""
        return self.on and self.by_port[port & 0xFFFF] != 0

    def learn(self, eip: cython.uint) -> cython.int:
        """The instruction at `eip` has accessed an offered port: make it a site if it can be."""
        linear: cython.uint = self.cpu.linear(eip)
        if linear in self.sites or len(self.sites) >= MOST_SITES or not self.is_plain():
            return 0
        if self.meter.rom.is_rom(linear):
            return 0
        self.code.load(eip)
        if not self.decode():
            return 0
        self.sites.add(int(linear))
        return self.renew(linear)

    def drop(self, linear: cython.uint) -> cython.int:
        """No longer a site."""
        self.sites.discard(int(linear))
        return self.renew(linear)

    def renew(self, linear: cython.uint) -> cython.int:
        """The sites have changed: have the code around this one translated anew."""
        self.break_at(sorted(self.sites))
        if self.paging.walk(linear) and self.memory.is_ram(self.paging.physical >> 12):
            self.cpu.forget_code(self.memory.host(self.paging.physical >> 12))
        return 0

    # ---- one access

    def decode(self) -> cython.bint:
        """What the loaded instruction accesses; false if it is no port access of a usual form."""
        code: InstructionBytes = self.code
        at: cython.uint = 0
        small: cython.bint = False
        repeated: cython.bint = False
        prefix: cython.uint = code.byte(0)
        segment: cython.bint = False
        while at < 8 and prefix in (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0xF2, 0xF3):
            if prefix == 0x66:
                small = True
            elif prefix == 0xF3 or prefix == 0xF2:
                repeated = True
            elif prefix != DS_PREFIX:
                segment = True
            at += 1
            prefix = code.byte(at)
        opcode: cython.uint = prefix
        self.size = 1
        if opcode & 1:
            self.size = 2 if small else 4
        self.port = self.cpu.reg(EDX) & 0xFFFF
        self.length = at + 1
        access: cython.uint = self.size
        if opcode & 2:
            access |= OUT
        self.by_register = opcode & 0xFC != IMMEDIATE
        if not self.by_register:
            self.port = code.byte(at + 1)
            self.length += 1
        elif opcode & 0xFC == 0x6C:
            access |= STRING
            if segment:
                return False
            if repeated:
                access |= REPEATED
        elif opcode & 0xFC != 0xEC:
            return False
        self.access = access | (self.length << LENGTH) | (self.port << PORT)
        return True

    def is_plain(self) -> cython.bint:
        """Ring 0, protected, flat segments of 32 bits, and nobody who steps."""
        cpu: CpuState = self.cpu
        segment: cython.uint
        if cpu.cpl() or not cpu.code_is_wide() or cpu.eflags() & NEVER:
            return False
        for segment in range(4):
            if cpu.base(segment) or cpu.limit(segment) != WHOLE:
                return False
        return (cpu.attributes(SS) & BIG) != 0

    def reflect(self, eip: cython.uint) -> cython.bint:
        """Have the handler answer the decoded access; false, with nothing done, if it cannot."""
        cpu: CpuState = self.cpu
        if not self.wants(self.port) or not self.is_plain() or not self.has_buffer():
            return False
        if not self.has_rom(self.offsets[0]):
            return False
        esp: cython.uint = cpu.reg(ESP)
        flags: cython.uint = cpu.eflags()
        if esp & 3 or esp < 4 * FRAME_WORDS:
            return False
        i: cython.uint
        for i in range(FRAME_WORDS):
            place: cython.Py_ssize_t = self.paging.translate(esp - 4 * (i + 1), True, False)
            if place < 0 or not self.is_ordinary(cython.cast(cython.uint, place)):
                return False
            self.places[i] = cython.cast(cython.uint, place)
        self.counters.count(REFLECT, self.qualifier(), eip)
        self.memory.write32(self.places[0], flags)
        self.memory.write32(self.places[1], cpu.selector(CS))
        self.memory.write32(self.places[2], cython.cast(cython.uint, (eip + self.length) & LOW_32))
        self.memory.write32(self.places[3], self.access | (flags & DIRECTION_FLAG))
        cpu.set_reg(ESP, esp - 4 * FRAME_WORDS)
        cpu.clear_interrupt_shadow()
        cpu.clear_system_flags(CLEARED)
        cpu.set_eip(cython.cast(cython.uint, (self.image + self.offsets[0]) & LOW_32))
        return True

    def has_rom(self, offset: cython.uint) -> cython.bint:
        """Is this part of the image where the ROM said it is?"""
        address: cython.uint = cython.cast(cython.uint, (self.image + offset) & LOW_32)
        return self.paging.translate(address, False, False) == self.image_physical + offset

    def patch(self, eip: cython.uint) -> cython.bint:
        """Have the guest call the ROM in place of the decoded instruction from now on, if it can.

        The call takes the port from EDX and the count from ECX. It must fit, in one page that
        no ring 3 can run (which cannot run the ROM) and nobody else watches. The site is none then.
        """
        string: cython.bint = (self.access & STRING) != 0
        if (
            self.length < CALL_BYTES
            or not self.by_register
            or (string and not self.access & REPEATED)
            or not self.wants(self.port)
            or not self.is_plain()
            or (eip & 0xFFF) + self.length > 0x1000
        ):
            return False
        place: cython.Py_ssize_t = self.paging.translate(eip, False, False)
        if place < 0 or not self.is_ordinary(cython.cast(cython.uint, place)):
            return False
        if self.paging.translate(eip, False, True) >= 0:
            return False
        number: cython.uint = 1 + (0 if self.size == 4 else self.size)
        number += 3 if string else 0
        number += 6 if self.access & OUT else 0
        if not self.has_rom(self.offsets[number]):
            return False
        physical: cython.uint = cython.cast(cython.uint, place)
        target: cython.uint = cython.cast(cython.uint, (self.image + self.offsets[number]) & LOW_32)
        distance: cython.uint = cython.cast(cython.uint, (target - eip - CALL_BYTES) & LOW_32)
        self.counters.count(REFLECT, self.qualifier(), eip)
        i: cython.uint
        self.memory.write8(physical, NEAR_CALL)
        for i in range(4):
            self.memory.write8(physical + 1 + i, (distance >> (8 * i)) & 0xFF)
        for i in range(CALL_BYTES, self.length):
            self.memory.write8(physical + i, NOP)
        self.patched += 1
        self.drop(eip)
        return True

    def qualifier(self) -> cython.uint:
        """Port, size and direction, as the ledger has them."""
        return self.port | (self.size << 16) | (WRITE_DIRECTION if self.access & OUT else 0)

    def is_ordinary(self, physical: cython.uint) -> cython.bint:
        """Memory to be written without anyone having to know?"""
        frame: cython.uint = physical >> 12
        return (
            self.memory.is_ram(frame)
            and not self.memory.is_protected(frame)
            and not self.shadow.is_traced(self.memory.host(frame))
        )

    def has_buffer(self) -> cython.bint:
        """Is all that a string instruction reads or writes mapped, in memory?

        The handler must not fault in the middle, where the instruction would have faulted.
        """
        if not self.access & STRING:
            return True
        count: cython.ulonglong = self.cpu.reg(ECX) if self.access & REPEATED else 1
        length: cython.ulonglong = count * self.size
        write: cython.bint = not self.access & OUT
        start: cython.ulonglong = self.cpu.reg(EDI if write else ESI)
        if length == 0:
            return True
        if length > MOST_STRING or self.cpu.eflags() & DIRECTION_FLAG or start + length > LOW_32:
            return False
        at: cython.ulonglong = (start >> 12) << 12
        while at < start + length:
            place: cython.Py_ssize_t = self.paging.translate(
                cython.cast(cython.uint, at), write, False
            )
            if place < 0 or not self.memory.is_ram(cython.cast(cython.uint, place) >> 12):
                return False
            if write and not self.is_ordinary(cython.cast(cython.uint, place)):
                return False
            at += 0x1000
        return True
