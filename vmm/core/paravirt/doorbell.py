"""The monitor's end of the doorbell; vmi/doorbell.py describes its functions.

A ROM can ask for nonsense: it gets 0 in EAX, a line in the run's report, and no
effect.
"""

import struct

import cython

from vmi.address import PAGE_SHIFT
from vmi.apstate import AP_STATE_SIZE, START_WORDS, ApState
from vmi.clock import ALARM_WORDS, AlarmRequest, alarm_of
from vmi.doorbell import Doorbell, Feature
from vmi.ide import IdeField
from vmi.queue import HeaderField
from vmi.reflection import TABLE
from vmm.core.counters import Counters
from vmm.core.cpu.apstart import check_start
from vmm.core.cpu.cpustate import CpuState
from vmm.core.event import Event
from vmm.core.guestblock import GuestBlock
from vmm.core.localapic import LocalApic
from vmm.core.memory import GuestMemory
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadow import ShadowMmu
from vmm.core.paravirt.batch import BatchQueue
from vmm.core.paravirt.queueregion import QueueRefused
from vmm.core.ports.reflector import Reflector
from vmm.core.saved import CUSTOM, PART, Fields

HYPERCALL = cython.declare(cython.uint, Event.HYPERCALL)
ATTACH = cython.declare(cython.uint, Doorbell.ATTACH)
FLUSH = cython.declare(cython.uint, Doorbell.FLUSH)
INVALIDATE_PAGE = cython.declare(cython.uint, Doorbell.INVALIDATE_PAGE)
FLUSH_TLB = cython.declare(cython.uint, Doorbell.FLUSH_TLB)
SET_CR3 = cython.declare(cython.uint, Doorbell.SET_CR3)
UPDATE_ENTRY = cython.declare(cython.uint, Doorbell.UPDATE_ENTRY)
QUEUE_FULL = cython.declare(cython.uint, Doorbell.QUEUE_FULL)
ADOPT_TABLES = cython.declare(cython.uint, Doorbell.ADOPT_TABLES)
SET_ALARM = cython.declare(cython.uint, Doorbell.SET_ALARM)
CANCEL_ALARM = cython.declare(cython.uint, Doorbell.CANCEL_ALARM)
START_AP = cython.declare(cython.uint, Doorbell.START_AP)
APIC_READ = cython.declare(cython.uint, Doorbell.APIC_READ)
APIC_WRITE = cython.declare(cython.uint, Doorbell.APIC_WRITE)
IDE_TAKE = cython.declare(cython.uint, Doorbell.IDE_TAKE)
IDE_REQUEST = cython.declare(cython.uint, Doorbell.IDE_REQUEST)
REFLECT = cython.declare(cython.uint, Doorbell.REFLECT)
FUNCTION_MASK = cython.declare(cython.uint, 0xFFFF)
OFFSET_SHIFT = cython.declare(cython.uint, 16)
REGISTER_MASK = cython.declare(cython.uint, 0xFFF)
FIND_HOME = cython.declare(cython.uint, Doorbell.FIND_HOME)
ATTACHED = cython.declare(cython.uint, Feature.ATTACHED)
COMPLAINTS = 16
LONGEST_COMPLAINT = 1024


@cython.final
@cython.cclass
class DoorbellPort:
    """Serves the hypercalls of one CPU; `complaints` are the first few that made no sense.

    `clock`, where there is one, is a `GuestClock` of this package. `start_ap(apic_id, state)`,
    where there is one, has a processor begin in a `vmi.apstate.ApState` when it is next
    started up, and raises `ValueError` where it cannot. `channels` are the IDE channels
    that the ROM may keep, each a `vmm.core.bus.LendsItself`; the `reflector` is that of the
    CPU.
    """

    SAVED = Fields(
        {CUSTOM: "complaints", PART: "clock"},
        wiring="cpu memory paging shadow queue counters apic start_ap channels reflector",
    )

    def __init__(
        self,
        cpu: CpuState,
        memory: GuestMemory,
        paging: GuestPaging,
        shadow: ShadowMmu,
        queue: BatchQueue,
        counters: Counters,
    ):
        self.cpu = cpu
        self.memory = memory
        self.paging = paging
        self.shadow = shadow
        self.queue = queue
        self.counters = counters
        self.clock = None
        self.start_ap = None
        self.apic = None
        self.channels = ()
        self.reflector: Reflector = None
        self.complaints = []

    def ring(self, function: cython.uint, argument: cython.uint, eip: cython.uint) -> cython.uint:
        """The doorbell: answers what the ROM finds in EAX."""
        offset: cython.uint = function >> OFFSET_SHIFT
        function &= FUNCTION_MASK
        if self.channels and (function == IDE_TAKE or function == IDE_REQUEST):
            return self.channel(function, argument, eip)
        self.counters.count(HYPERCALL, function, eip)
        if function == ATTACH:
            return self.attach(argument, eip)
        if not self.queue.is_served():
            self.complain(f"doorbell function {function} at {eip:#010x} before a queue is attached")
            return 0
        if self.apic is not None and (function == APIC_READ or function == APIC_WRITE):
            return self.register(function, offset, argument)
        self.queue.drain()
        if function == SET_CR3:
            self.paging.cr3 = argument
            self.queue.forget_fault_page()
            self.shadow.load_root()
        elif function == INVALIDATE_PAGE or function == FLUSH_TLB:
            # The TLB forgets what an entry withdraws, below; it has nothing else to forget.
            self.shadow.unsync.bring_into_step()
        elif function == UPDATE_ENTRY:
            physical: cython.Py_ssize_t = self.paging.translate(argument, False, False)
            if physical < 0:
                self.complain(
                    f"doorbell UPDATE_ENTRY at {eip:#010x}: {argument:#010x} is not mapped"
                )
                return 0
            self.shadow.follower.entry_written(cython.cast(cython.uint, physical))
        elif function == QUEUE_FULL:
            if not argument & 3:
                self.complain(f"doorbell QUEUE_FULL at {eip:#010x}: {argument:#010x} is no record")
                return 0
            self.queue.apply(argument)
        elif function == ADOPT_TABLES:
            self.shadow.adopt_tables()
        elif function == SET_ALARM or function == CANCEL_ALARM:
            return self.alarm(function, argument, eip)
        elif function == START_AP:
            return self.start(argument, eip)
        elif function == REFLECT:
            return self.bind(argument, eip)
        elif function == FIND_HOME:
            return self.queue.number_of_home()
        elif function != FLUSH:
            self.complain(f"doorbell function {function} at {eip:#010x} does not exist")
            return 0
        self.shadow.flush_if_stale()
        self.queue.check_fault_page()
        return ATTACHED

    def serve_clock(self, clock):
        """Grant the timer calls: publish this clock at attach, serve its alarms."""
        self.clock = clock
        self.queue.offered = self.queue.offered | Feature.CLOCK

    def serve_apic(self, apic: LocalApic):
        """Grant the APIC calls: mirror this local APIC from attach on, and serve its registers."""
        self.apic = apic
        self.queue.offered = self.queue.offered | Feature.APIC

    def register(
        self, function: cython.uint, offset: cython.uint, value: cython.uint
    ) -> cython.uint:
        """APIC_READ, APIC_WRITE; no page table is concerned, so nothing is drained."""
        if function == APIC_READ:
            return self.apic.load(value & REGISTER_MASK, 4)
        self.apic.store(offset & REGISTER_MASK, 4, value)
        return ATTACHED

    def alarm(self, function, argument, eip):
        """SET_ALARM, CANCEL_ALARM: 1 for done and for "was set"."""
        if self.clock is None:
            self.complain(f"doorbell function {function} at {eip:#010x}: there is no clock")
            return 0
        try:
            if function == CANCEL_ALARM:
                return int(self.clock.cancel(alarm_of(argument)[0]))
            self.clock.set(AlarmRequest.from_words(self.words_at(argument, ALARM_WORDS)))
        except (ValueError, QueueRefused) as refusal:
            self.complain(f"doorbell {Doorbell(function).name} at {eip:#010x} refused: {refusal}")
            return 0
        return 1

    def serve_start(self, start_ap):
        """Grant SetInitialAPState: this machine has other processors, which begin so."""
        self.start_ap = start_ap
        self.queue.offered = self.queue.offered | Feature.START_AP

    def start(self, address, eip):
        """START_AP: 1 for a state that was taken."""
        if self.start_ap is None:
            self.complain(f"doorbell START_AP at {eip:#010x}: there is no other processor")
            return 0
        try:
            at, apic_id = self.words_at(address, START_WORDS)
            words = self.words_at(at, AP_STATE_SIZE // 4)
            state = ApState.decode(b"".join(word.to_bytes(4, "little") for word in words))
            check_start(state)
            self.start_ap(apic_id, state)
        except (ValueError, QueueRefused) as refusal:
            self.complain(f"doorbell START_AP at {eip:#010x} refused: {refusal}")
            return 0
        return 1

    def serve_channels(self, channels):
        """Let the ROM keep these IDE channels, the first one first."""
        self.channels = tuple(channels)
        self.queue.offered = self.queue.offered | Feature.IDE

    def reflect_channels(self, break_at):
        """Let the ROM have what the guest does natively with the channels' ports.

        `break_at(addresses)` has the engine end blocks before these linear addresses.
        """
        self.reflector.break_at = break_at
        for channel in self.channels:
            self.reflector.offer(channel.ports)
        self.queue.offered = self.queue.offered | Feature.REFLECT

    def bind(self, table, eip):
        """REFLECT: 1 if the ROM's handler gets to hear of accesses from now on."""
        try:
            self.reflector.bind(*self.reflection_at(table))
        except QueueRefused as refusal:
            self.complain(f"doorbell REFLECT at {eip:#010x} refused: {refusal}")
            return 0
        return 1

    def reflection_at(self, table):
        """Where the image of this table is, virtual and physical, and what the table says."""
        if self.reflector.break_at is None or self.queue.peers:
            raise QueueRefused("nothing is reflected on this machine")
        physical = self.queue.locate(table)
        size = 2 * len(TABLE)
        if not self.queue.is_in_image(physical, size):
            raise QueueRefused(f"the table at {physical:#x} does not lie in the ROM")
        offsets = struct.unpack(f"<{len(TABLE)}H", self.memory.read(physical, size))
        start = self.queue.image_start
        if not self.queue.is_in_image(start + max(offsets), 1):
            raise QueueRefused(f"offset {max(offsets):#x} does not lie in the ROM")
        return table - (physical - start), start, offsets

    def channel(self, function, argument, eip):
        """IDE_TAKE, IDE_REQUEST: the work is a device's, so the exit is a heavy one."""
        self.counters.count_heavy(HYPERCALL, function, eip)
        name = Doorbell(function).name
        if function == IDE_REQUEST:
            if argument < len(self.channels) and self.channels[argument].serve():
                return 1
            self.complain(f"doorbell {name} at {eip:#010x}: channel {argument} is not the ROM's")
            return 0
        try:
            self.lend(argument)
        except QueueRefused as refusal:
            self.complain(f"doorbell {name} at {eip:#010x} refused: {refusal}")
            return 0
        return 1

    def lend(self, address):
        """Hand over the channel that the block at this virtual address is for."""
        (number,) = self.words_at(address + IdeField.NUMBER, 1)
        if number >= len(self.channels):
            raise QueueRefused(f"there is no channel {number}")
        channel = self.channels[number]
        if not channel.lend(self.room_at(address, channel.block_size)):
            self.reflector.withdraw(channel.ports)
            raise QueueRefused(f"channel {number} cannot be handed over")

    def room_at(self, address, size):
        """Guest memory in the ROM's writable data, at a virtual address; raises `QueueRefused`."""
        start = self.queue.locate(address)
        if start & 3 or not self.queue.is_in_image(start, size):
            raise QueueRefused(f"{size} bytes at {start:#x} do not lie in the ROM's data")
        last = (start + size - 1) >> PAGE_SHIFT
        for frame in range(start >> PAGE_SHIFT, last + 1):
            ahead = (frame << PAGE_SHIFT) - start
            if self.memory.is_protected(frame):
                raise QueueRefused(f"the ROM's page at {frame << PAGE_SHIFT:#x} is not writable")
            if ahead > 0 and self.queue.locate(address + ahead) != start + ahead:
                raise QueueRefused(f"what lies at {address:#010x} is not physically contiguous")
        return GuestBlock(self.memory, start, size)

    def words_at(self, address, count):
        """So many words of guest memory, at an address that the guest gave."""
        if address & 3:
            raise QueueRefused(f"the words at {address:#010x} are not on a multiple of 4")
        return [
            self.memory.read32(self.queue.locate(address + 4 * number)) for number in range(count)
        ]

    def attach(self, address, eip):
        """ATTACH: accept a queue, or say why not in the run's report."""
        try:
            granted = self.queue.attach(address)
        except QueueRefused as refusal:
            self.complain(f"doorbell ATTACH at {eip:#010x} refused: {refusal}")
            return 0
        if self.clock is not None:
            self.clock.publish(self.queue.location()[0])
        if self.apic is not None:
            header = self.queue.location()[0]
            self.apic.share(header + HeaderField.APIC_EOI, header + HeaderField.APIC_REGISTERS)
        # From here on the TLB is in step, too: native stores so far have left that to the guest.
        self.cpu.flush_tlb()
        return granted

    def _save_complaints(self):
        """For `vmm.core.saved`."""
        return list(self.complaints)

    def _load_complaints(self, value):
        """The same."""
        self.complaints = [str(text)[:LONGEST_COMPLAINT] for text in value[:COMPLAINTS]]

    def complain(self, text):
        """Note what the guest did wrong; a guest that goes on and on is cut short."""
        if len(self.complaints) < COMPLAINTS:
            self.complaints.append(text)
