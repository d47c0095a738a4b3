"""What becomes of a page fault of the shadow tables.

It is hidden, the guest's own, a store to a page table, or an access to what is no RAM.
"""

import cython

from vmm.core.code.blocks import BlockMeter
from vmm.core.code.deviceaccess import DeviceAccess
from vmm.core.code.stores import StoreEmulator
from vmm.core.counters import Counters
from vmm.core.cpu.cpustate import CpuState
from vmm.core.cpu.delivery import Delivery
from vmm.core.errors import Unsupported
from vmm.core.event import Event
from vmm.core.mmu.devicememory import DeviceMemory
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadow import ShadowMmu
from vmm.core.paravirt.batch import BatchQueue
from vmm.core.saved import U32, U64, Fields

PTE_WRITE = cython.declare(cython.uint, Event.PTE_WRITE)
SHADOW_FILL = cython.declare(cython.uint, Event.SHADOW_FILL)
PAGE_FAULT = cython.declare(cython.uint, Event.PAGE_FAULT)
MMIO = cython.declare(cython.uint, Event.MMIO)
CODE_WRITE = cython.declare(cython.uint, Event.CODE_WRITE)
NX_FETCH = cython.declare(cython.uint, Event.NX_FETCH)
BYPASSED_FAULT = cython.declare(cython.uint, Event.BYPASSED_FAULT)
DIRTY_LOG = cython.declare(cython.uint, Event.DIRTY_LOG)

# What ShadowMmu.resolve() answers.
FILLED = cython.declare(cython.int, 0)
MADE_EXECUTABLE = cython.declare(cython.int, 1)
GUEST_FAULT = cython.declare(cython.int, 2)
TABLE_WRITE = cython.declare(cython.int, 3)
MADE_WRITABLE = cython.declare(cython.int, 5)
DEVICE_ACCESS = cython.declare(cython.int, 6)
LOGGED = cython.declare(cython.int, 7)

# What DeviceMemory.decodes() answers.
CORE = cython.declare(cython.uint, 1)

PAGE_FAULT_VECTOR = cython.declare(cython.uint, 14)
# Bits of a page-fault error code.
WRITE_TO_PRESENT = cython.declare(cython.uint, 3)
WRITE = cython.declare(cython.uint, 2)
WRITE_BY_USER = cython.declare(cython.uint, 6)
ACCESS = cython.declare(cython.uint, 7)
# In the place of a hidden fault: records were drained before it was judged.
TOLD = cython.declare(cython.uint, 8)


@cython.final
@cython.cclass
class PageFaults:
    """Serves the page faults of one CPU.

    `fault_mask` and `lets_stray` are what the policy says of them. A fault sets `filled` if it was
    hidden, and the same access can be made now.
    """

    SAVED = Fields(
        {U64: "given_up", U32: "given_up_frame"},
        wiring="cpu paging shadow queue counters meter delivery stores access devices fault_mask "
        "lets_stray",
        transient="filled",
    )

    def __init__(
        self,
        cpu: CpuState,
        paging: GuestPaging,
        shadow: ShadowMmu,
        queue: BatchQueue,
        counters: Counters,
        meter: BlockMeter,
        delivery: Delivery,
        stores: StoreEmulator,
        access: DeviceAccess,
        devices: DeviceMemory,
    ):
        self.cpu = cpu
        self.paging = paging
        self.shadow = shadow
        self.queue = queue
        self.counters = counters
        self.meter = meter
        self.delivery = delivery
        self.stores = stores
        self.access = access
        self.devices = devices
        self.fault_mask = False
        self.lets_stray = False
        self.filled = False
        self.given_up = 0xFFFFFFFFFFFFFFFF
        self.given_up_frame = 0

    def page_fault(self, eip: cython.uint) -> cython.int:
        """A fault of the shadow tables: hidden, true, or a store to a page table."""
        shadow: ShadowMmu = self.shadow
        address: cython.uint = self.cpu.fault_address()
        if self.fault_mask and shadow.lets_fault_through(address, self.cpu.error_code()):
            self.counters.count(BYPASSED_FAULT, shadow.guest_error & ACCESS, eip)
            self.cpu.set_cr2(address)
            return self.delivery.deliver(PAGE_FAULT_VECTOR, shadow.guest_error, False, eip)
        if shadow.makes_executable(address, self.cpu.error_code()):
            return self.counters.count(NX_FETCH, 0, eip)
        # The guest may have told of the very entry that is missing.
        told: cython.uint = TOLD if self.queue.drain() else 0
        outcome: cython.int = shadow.resolve(address, self.cpu.error_code())
        if outcome == FILLED or outcome == LOGGED or outcome == MADE_WRITABLE:
            self.filled = True
        if outcome == FILLED:
            self.queue.check_fault_page()
            access: cython.uint = self.cpu.error_code() & WRITE_BY_USER
            return self.counters.count(SHADOW_FILL, access | told, eip)
        if outcome == MADE_EXECUTABLE:
            return self.counters.count(NX_FETCH, 0, eip)
        if outcome == LOGGED:
            self.queue.check_fault_page()
            return self.counters.count(DIRTY_LOG, (shadow.target >> 12) << 12, eip)
        if outcome == MADE_WRITABLE:
            self.queue.check_fault_page()
            return self.counters.count(CODE_WRITE, 0, eip)
        if outcome == GUEST_FAULT:
            self.counters.count(PAGE_FAULT, shadow.guest_error & ACCESS, eip)
            if self.fault_mask and shadow.guest_error == 7 and shadow.pages.withheld:
                shadow.pages.drop_withheld()
            if self.queue.attached and shadow.guest_error & WRITE_TO_PRESENT == WRITE_TO_PRESENT:
                # As on a processor, whose faults drop the translation they came from
                # (SDM vol. 3, section 4.10.4.1).
                self.queue.publish_fault_page(address)
            self.cpu.set_cr2(address)
            return self.delivery.deliver(PAGE_FAULT_VECTOR, shadow.guest_error, False, eip)
        if outcome == TABLE_WRITE:
            return self.table_write(eip)
        if outcome == DEVICE_ACCESS:
            return self.device_access(eip, address)
        # A ROM swallows stores.
        self.counters.count_heavy(MMIO, shadow.target, eip)
        physical: cython.uint = shadow.target
        if not self.stores.emulate(eip, physical) and not self.stores.emulate_string(eip, physical):
            raise Unsupported(
                f"store to the ROM at {physical:#x} by the instruction at {eip:#010x}"
            )
        self.meter.retire()
        return 0

    def table_write(self, eip: cython.uint) -> cython.int:
        """A store to a traced page: emulate it and let the shadow follow."""
        shadow: ShadowMmu = self.shadow
        physical: cython.uint = shadow.target
        frame: cython.uint = shadow.memory.host(physical >> 12)
        self.counters.count(PTE_WRITE, (physical >> 12) << 12, eip)
        if self.lets_stray and shadow.unsync.can_stray(frame):
            shadow.unsync.let_stray(frame)
            # The store itself is the processor's; the same exit makes it possible.
            shadow.resolve(self.cpu.fault_address(), self.cpu.error_code())
            return 0
        # Code of 16 bits encodes stores in another way.
        emulated: cython.bint = self.cpu.code_is_wide() and self.stores.emulate(eip, physical)
        # Some pages cannot be given up: what the processor needs to get here, where the
        # same store would come back before any instruction has completed.
        if not emulated and (
            shadow.is_in_use(frame)
            or (self.given_up == self.meter.count() and self.given_up_frame == frame)
        ):
            emulated = self.stores.emulate_string(eip, physical)
            if not emulated:
                raise Unsupported(
                    f"store to a page table in use at {physical:#x} by the instruction "
                    f"at {eip:#010x}"
                )
        if not emulated:
            # A page that is written in an unknown way, or swept by a string
            # instruction, is no page table now: forget that it ever was.
            shadow.pages.unshadow(frame)
            self.given_up = self.meter.count()
            self.given_up_frame = frame
            return shadow.flush_if_stale()
        self.meter.retire()
        shadow.pages.unseen[frame] = 1
        shadow.follower.entry_written((physical >> 2) << 2)
        if ((physical & 3) + self.stores.touched) > 4:
            shadow.follower.entry_written(((physical >> 2) << 2) + 4)
        # A guest without a ROM follows up with INVLPG or CR3 where it matters; a ROM
        # that was promised a shadow in step may skip that.
        if self.queue.is_served():
            shadow.flush_if_stale()
            self.queue.check_fault_page()
        return 0

    def device_access(self, eip: cython.uint, address: cython.uint) -> cython.int:
        """An access to the registers of the local APIC, or of a device in memory."""
        physical: cython.uint = self.shadow.target
        ring3: cython.bint = self.cpu.cpl() == 3
        done: cython.bint = self.access.load(eip, physical)
        # What loads first and then stores faults on the load.
        if not done and self.paging.translate(address, True, ring3) >= 0:
            done = self.access.store(eip, physical)
        if not done:
            # A form that only the engine knows, which learns of it through a window.
            self.paging.translate(address, self.cpu.error_code() & WRITE != 0, ring3)
            self.counters.count(SHADOW_FILL, self.cpu.error_code() & WRITE_BY_USER, eip)
            return self.shadow.fill(address, self.cpu.error_code() & WRITE != 0, False)
        self.meter.retire()
        return self.count_device_access(physical, eip)

    def count_device_access(self, physical: cython.uint, eip: cython.uint) -> cython.int:
        """Light where the core answers, else heavy."""
        if self.devices.decodes(physical >> 12) == CORE:
            return self.counters.count(MMIO, physical, eip)
        return self.counters.count_heavy(MMIO, physical, eip)
