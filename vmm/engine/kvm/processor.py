"""One guest CPU on KVM: every return of KVM_RUN, served and counted as on the other engine.

The ledger's reasons mean the same here and there. A port access by a device, an access
to no RAM and a store to a ROM are heavy; the doorbell and HLT are served in place.
How often KVM_RUN returned, and for what, is listed beside them as engine events.
"""

import ctypes
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from mmap import mmap
from typing import Protocol

from vmi.address import PAGE_SHIFT
from vmi.doorbell import PORT, SIGNATURE
from vmm.core.bus import PortBus
from vmm.core.counters import Counters
from vmm.core.cpu.cpuid import cpuid
from vmm.core.errors import EngineFailure, TripleFault
from vmm.core.event import Event
from vmm.core.memory import GuestMemory
from vmm.engine.kvm.device import Kvm, KvmVm
from vmm.engine.kvm.doorbell import KvmDoorbell
from vmm.engine.kvm.hostlimits import check_paging
from vmm.engine.kvm.place import PortPlaces
from vmm.engine.kvm.slots import Slot, SlotTable, slots_of
from vmm.engine.kvm.uapi import (
    Exit,
    Ioctl,
    MmioExit,
    MpState,
    Regs,
    RunArea,
    Segment,
    Sregs,
    Translation,
)
from vmm.engine.kvm.vcpu import CpuidRow, KvmVcpu, supported_cpuid

__all__ = ["KvmProcessor", "MemoryBus"]

_IO = struct.Struct("<BBHIQ")
_MMIO = struct.Struct("<Q8sIB")
_UNION = RunArea.exit.offset
_IF_FLAG = RunArea.if_flag.offset
_READY = RunArea.ready_for_interrupt_injection.offset
_WANT_WINDOW = RunArea.request_interrupt_window.offset
_SYNCED_RIP = RunArea.s.offset + Regs.rip.offset
_SYNCED_CS = RunArea.s.offset + ctypes.sizeof(Regs) + Sregs.cs.offset + Segment.base.offset
_SYNCED_BIG = RunArea.s.offset + ctypes.sizeof(Regs) + Sregs.cs.offset + Segment.db.offset
_QWORD = struct.Struct("<Q")

_IO_EVENT, _MMIO_EVENT = int(Event.IO), int(Event.MMIO)
_WRITE_DIRECTION = 0x1000000
_VALUES = {1: struct.Struct("<B"), 2: struct.Struct("<H"), 4: struct.Struct("<I")}
_LOW_32 = 0xFFFFFFFF
_MP_RUNNABLE, _MP_HALTED = 0, 3
_CR0_PG = 1 << 31
_APIC_BASE_DISABLED = 0xFEE00000 | 1 << 8
_APIC_ENABLED = 1 << 11
_LEAVES = (0, 1, 0x40000000, 0x80000000, 0x80000001)
_FEATURE_LEAVES = (1, 0x80000001)
_HYPERVISOR = 1 << 31
_APIC_FEATURE = 1 << 9
_HLT_LENGTH = 1


class MemoryBus(Protocol):
    """Who answers at guest-physical addresses where no slot is."""

    def memory_read(self, address: int, size: int) -> bytes:
        """What is there; all ones where nobody decodes."""
        ...


class KvmProcessor:
    """A virtual machine with one vCPU and its memory, by the frames of `memory`.

    `ram` is the guest's memory, `ports` serves its port accesses, `bus` its accesses to
    no memory. With `local_apic` the kernel has one (split irqchip); it then serves HLT too.
    """

    def __init__(
        self,
        kvm: Kvm,
        ram: mmap,
        memory: GuestMemory,
        ports: PortBus,
        bus: MemoryBus,
        *,
        local_apic: bool = False,
    ) -> None:
        self.counters = Counters()
        self.returns: Counter[int] = Counter()
        self.stopping = False
        self.irq_pending = False
        self._halts_in_kernel = local_apic
        self._ram = ram
        self._memory = memory
        self._ports = ports
        self._bus = bus
        self._extra: list[Slot] = []
        self._traced: set[int] = set()
        self._vm = KvmVm(kvm, local_apic=local_apic)
        self._slots = SlotTable(self._vm)
        self.vcpu = KvmVcpu(self._vm)
        self.vcpu.set_cpuid(_cpuid_rows(kvm, local_apic=local_apic))
        self.registers = self.vcpu.registers
        self.area = self.vcpu.area
        self.registers.set_named({"apic_base": _apic_base(local_apic)})
        self.enter = self.vcpu.runner()
        self.doorbell = KvmDoorbell(memory, self.translate, self.remap)
        self._places = PortPlaces(self._code)
        self._serve: dict[int, Callable[[], None]] = {
            Exit.IO: self._port_access,
            Exit.MMIO: self._memory_access,
        }

    # ---- memory

    def remap(self) -> None:
        """Make the slots what the memory says, with what was added."""
        self.collect_written()
        self._slots.replace([*slots_of(self._memory, self._ram, self._traced), *self._extra])

    def collect_written(self) -> None:
        """Have the memory's own log know what the kernel has logged so far."""
        log = self._memory.log
        for place in self._slots.written():
            log.written(place >> PAGE_SHIFT)

    def add_slots(self, slots: Iterable[Slot]) -> None:
        """Memory besides the guest's RAM, from the next `remap` on; replaces what there was."""
        self._extra = list(slots)

    def trace(self, frames: Iterable[int]) -> None:
        """Count stores to these page frames, and carry them out: page tables, say.

        Replaces what was traced before. Each store becomes a `pte_write` exit, which is dear:
        its slot is made anew each time, for kernels that shadow page tables themselves.
        """
        traced = set(frames)
        if traced != self._traced:
            self._traced = traced
            self.remap()

    def translate(self, address: int) -> int:
        """The guest-physical address of a linear one by the guest's tables, -1 for none."""
        if not self.registers.named("cr0")[0] & _CR0_PG:
            return address
        buffer = bytearray(Translation(linear_address=address))
        self.vcpu.descriptor.ioctl_buffer(Ioctl.TRANSLATE, buffer)
        found = Translation.from_buffer(buffer)
        return int(found.physical_address) & _LOW_32 if found.valid else -1

    def _code(self, address: int, size: int) -> bytes:
        """Code bytes at a linear address; fewer where nothing is mapped or memory ends."""
        physical = self.translate(address)
        for slot in self._slots.slots:
            if slot.address <= physical < slot.end:
                start = physical - slot.address + slot.offset
                return slot.memory[start : min(start + size, slot.offset + slot.size)]
        return b""

    # ---- exits

    def serve(self, reason: int) -> None:
        """Serve one return of KVM_RUN that is the guest's doing.

        Raises `TripleFault` and `EngineFailure` for what ends the run, and
        `BadDescription` where the guest needs what this host cannot do.
        """
        handler = self._serve.get(reason)
        if handler is not None:
            handler()
        elif reason == Exit.SHUTDOWN:
            check_paging(self.registers, self._code)
            raise TripleFault(f"{self.vcpu.explain(reason)} at {self.eip():#010x}")
        else:
            raise EngineFailure(f"{self.vcpu.explain(reason)} at {self.eip():#010x}")

    def eip(self) -> int:
        """The linear address that the guest stands at."""
        rip, base = self.registers.named("rip", "cs.base")
        return (rip + base) & _LOW_32

    def _place(self, direction: int, size: int, port: int) -> int:
        area = self.area
        if self.vcpu.synced:
            rip = _QWORD.unpack_from(area, _SYNCED_RIP)[0] + _QWORD.unpack_from(area, _SYNCED_CS)[0]
            big = area[_SYNCED_BIG]
        else:
            rip, base, big = self.registers.named("rip", "cs.base", "cs.db")
            rip += base
        return self._places.start(rip & _LOW_32, direction, size, port, big=bool(big))

    def _port_access(self) -> None:
        """IN or OUT; of a string instruction, one access an element as on any bus."""
        area = self.area
        direction, size, port, count, offset = _IO.unpack_from(area, _UNION)
        eip = self._place(direction, size, port)
        value = _VALUES[size]
        if port == PORT and size == 4:
            return self._ring(direction, offset, count, eip)
        counters, ports = self.counters, self._ports
        qualifier = port | size << 16
        if direction:
            qualifier |= _WRITE_DIRECTION
            for at in range(offset, offset + size * count, size):
                counters.count_heavy(_IO_EVENT, qualifier, eip)
                ports.write(port, size, value.unpack_from(area, at)[0])
                if self.stopping:
                    return None
            return None
        mask = (1 << (8 * size)) - 1
        for at in range(offset, offset + size * count, size):
            counters.count_heavy(_IO_EVENT, qualifier, eip)
            value.pack_into(area, at, ports.read(port, size) & mask)
        return None

    def _ring(self, direction: int, offset: int, count: int, eip: int) -> None:
        """The doorbell's port."""
        area = self.area
        for at in range(offset, offset + 4 * count, 4):
            if not direction:
                self.counters.count(Event.IO, PORT | 4 << 16, eip)
                struct.pack_into("<I", area, at, SIGNATURE)
                continue
            function = struct.unpack_from("<I", area, at)[0]
            self.counters.count(Event.HYPERCALL, function, eip)
            rax, rcx = self.registers.named("rax", "rcx")
            answer = self.doorbell.ring(function, rcx & _LOW_32, eip)
            self.registers.set_named({"rax": rax & ~_LOW_32 | answer})

    def _memory_access(self) -> None:
        """A load or store where no slot is, or a store to a read-only one."""
        address, data, size, is_write = _MMIO.unpack_from(self.area, _UNION)
        eip = self.eip()
        if is_write and address >> PAGE_SHIFT in self._traced:
            self.counters.count(Event.PTE_WRITE, address >> PAGE_SHIFT << PAGE_SHIFT & _LOW_32, eip)
            self._memory.load(address, data[:size])
            self.collect_written()
            self._slots.renew(address)
            return
        self.counters.count_heavy(_MMIO_EVENT, address & _LOW_32, eip)
        if not is_write:
            start = _UNION + MmioExit.data.offset
            self.area[start : start + size] = self._bus.memory_read(address, size)

    def count_halt(self) -> None:
        """Count a HLT that the guest stands behind."""
        self.counters.count(Event.HLT, 0, (self.eip() - _HLT_LENGTH) & _LOW_32)

    @property
    def takes_interrupts(self) -> bool:
        """Are interrupts on?"""
        return bool(self.area[_IF_FLAG])

    @property
    def asleep(self) -> bool:
        """Has the guest halted inside the kernel, which has its local APIC?"""
        if not self._halts_in_kernel:
            return False
        buffer = bytearray(ctypes.sizeof(MpState))
        self.vcpu.descriptor.ioctl_buffer(Ioctl.GET_MP_STATE, buffer)
        return bool(MpState.from_buffer(buffer).mp_state == _MP_HALTED)

    # ---- interrupts

    @property
    def can_interrupt(self) -> bool:
        """Would the CPU take an external interrupt now?"""
        return bool(self.area[_READY] and self.area[_IF_FLAG])

    def want_window(self, wanted: bool) -> None:  # noqa: FBT001 - a request is up or down
        """Have KVM_RUN return as soon as an interrupt can be taken."""
        self.area[_WANT_WINDOW] = int(wanted)

    def interrupt(self, vector: int) -> None:
        """Deliver an external interrupt with the next KVM_RUN."""
        self.vcpu.descriptor.ioctl_buffer(Ioctl.INTERRUPT, bytearray(struct.pack("<I", vector)))
        self.area[_READY] = 0

    def count_event(self, event: Event) -> None:
        """Count what the run loop saw."""
        self.counters.count(event, 0, self.eip())

    # ---- state

    def start(self, state: Mapping[str, int]) -> None:
        """Set registers by name before the guest runs, awake whatever it did before."""
        if self._halts_in_kernel:
            self.vcpu.descriptor.ioctl_buffer(Ioctl.SET_MP_STATE, bytearray(MpState(_MP_RUNNABLE)))
        self.registers.set_named(state)

    def forget(self) -> None:
        """Start the counts afresh: what ran so far was not the guest."""
        self.counters = Counters()
        self.returns.clear()
        self._places.forget()

    def returns_by_name(self) -> dict[str, int]:
        """How often KVM_RUN returned, by the kernel's names: these are this engine's exits."""
        names = {int(reason): reason.name.lower() for reason in Exit}
        return {
            f"kvm_exit_{names.get(reason, reason)}": count
            for reason, count in sorted(self.returns.items())
        }

    def state(self) -> dict[str, int]:
        """The registers that reports show, by their 32-bit names."""
        general = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
        names = ("rip", "rflags", *general, "ss.dpl", "cr0", "cr2", "cr3", "cr4")
        shown = ("eip", "eflags", *(f"e{name[1:]}" for name in general), "cpl", *names[-4:])
        return {
            name: value & _LOW_32
            for name, value in zip(shown, self.registers.named(*names), strict=True)
        }

    def close(self) -> None:
        """Give vCPU and machine back to the kernel."""
        self.vcpu.close()
        self._vm.close()


def _apic_base(local_apic: bool) -> int:  # noqa: FBT001 - private
    return _APIC_BASE_DISABLED | (_APIC_ENABLED if local_apic else 0)


def _cpuid_rows(kvm: Kvm, *, local_apic: bool) -> list[CpuidRow]:
    """The processor of the other engine, less what this host does not have."""
    host = {(row[0], row[1]): row for row in supported_cpuid(kvm)}
    rows: list[CpuidRow] = []
    for leaf in _LEAVES:
        eax, ebx, ecx, edx = cpuid(leaf)
        if leaf in _FEATURE_LEAVES:
            known = host.get((leaf, 0), (0,) * 7)
            ecx &= known[5] | _HYPERVISOR
            edx &= known[6]
            if leaf == 1 and local_apic:
                edx |= _APIC_FEATURE
        rows.append((leaf, 0, 0, eax, ebx, ecx, edx))
    return rows
