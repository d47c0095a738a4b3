"""What the virtual CPUs of one machine share."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from mmap import mmap
from queue import SimpleQueue
from typing import TypeVar

from vmi.address import PAGE_MASK
from vmm.core.binding import EngineBinding
from vmm.core.bus import PortBus
from vmm.core.cpu.cpustate import CpuState
from vmm.core.cpu.vcpu import Vcpu
from vmm.core.dirtylog import bitmap_of
from vmm.core.errors import BadSlots, VcpuThreadError
from vmm.core.latestexit import ExitRecords
from vmm.core.memory import GuestMemory
from vmm.core.mmu.shadowpages import ShadowPages
from vmm.core.mmu.tlbfill import TlbFill
from vmm.core.mmu.windows import Windows
from vmm.core.policy import Policy
from vmm.core.run.crew import AS_IT_IS, CODE_TOO, Crew
from vmm.core.saved import Fields
from vmm.core.slots import MemorySlot, SlotList, changed_frames

__all__ = ["MOST_CPUS", "Vm"]

_Result = TypeVar("_Result")

MOST_CPUS = 8
"""As many virtual CPUs can a machine have."""


class Vm:
    """Memory, shadow tables and the virtual CPUs that run on them, the first one first.

    Each of the `bindings` is an engine's CPU, all of which have `ram` at guest-physical
    address 0 and `pool` at `pool_address`. `cpuid` and `msrs` are as in
    `PrivilegedRegisters`; each CPU gets registers of its own.

    With a `crew` each CPU has a host thread, to which it belongs from `bind_crew` on; without
    one all belong to the thread that made them. Raises `ValueError` for more than 8 bindings, or
    none.
    """

    SAVED = Fields(
        wiring="memory vcpus crew", elsewhere="pages current", host="_thread _owners _posted exits"
    )

    def __init__(
        self,
        memory: GuestMemory,
        bindings: Sequence[EngineBinding],
        pool: mmap,
        pool_address: int,
        window_address: int,
        policy: Policy,
        ports: PortBus,
        cpuid: Callable[[int], tuple[int, int, int, int]],
        msrs: Mapping[int, int],
        crew: Crew | None = None,
    ) -> None:
        if not 1 <= len(bindings) <= MOST_CPUS:
            raise ValueError(f"{len(bindings)} virtual CPUs: expected 1 to {MOST_CPUS}")
        self.memory = memory
        states = [CpuState(binding) for binding in bindings]
        self.pages = ShadowPages(memory, states, pool, pool_address, Windows(window_address))
        self.vcpus = [
            Vcpu(i, state, memory, self.pages, int(policy.features), ports, cpuid, dict(msrs))
            for i, state in enumerate(states)
        ]
        for vcpu, binding in zip(self.vcpus, bindings, strict=True):
            vcpu.fill = TlbFill(vcpu, binding)
            vcpu.faults.fault_mask = policy.fault_mask
            vcpu.faults.lets_stray = policy.unsync
            vcpu.queue.peers = tuple(other.queue for other in self.vcpus if other is not vcpu)
        self.exits = ExitRecords(len(self.vcpus))
        for vcpu in self.vcpus:
            vcpu.counters.share(self.exits.of(vcpu.index))
        self.current = self.vcpus[0]
        self._thread = threading.current_thread()
        self._posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.crew = crew
        self._owners: list[threading.Thread] = []
        if crew is not None:
            flags = [binding.next_flags for binding in bindings]
            crew.man(self.vcpus, flags, self._switch)

    # ---- threads

    def bind(self) -> None:
        """The CPUs belong to the calling thread from now on; they must not be running.

        With a crew each stays with its own thread, and this is about `run` alone.
        """
        self._thread = threading.current_thread()

    def bind_crew(self) -> None:
        """What a CPU is made of is in place: from now on only its thread may call it."""
        if self.crew is not None:
            self._owners = [member.thread for member in self.crew.threads]

    def check_thread(self, what: str, vcpu: Vcpu | None = None) -> None:
        """Raises `VcpuThreadError` for a call from a thread that the CPUs do not belong to.

        Of `vcpu`, where CPUs have threads of their own.
        """
        caller = threading.current_thread()
        if vcpu is not None and self._owners:
            owner, whose = self._owners[vcpu.index], f"virtual CPU {vcpu.index} belongs"
        else:
            owner, whose = self._thread, "the virtual CPUs belong"
        if caller is not owner:
            raise VcpuThreadError(
                f"{what} from thread {caller.name!r}: {whose} to thread {owner.name!r}"
            )

    def call(self, index: int, action: Callable[[], _Result]) -> _Result:
        """Carry out `action` in the thread of a CPU, which must not be running; its result.

        Whatever it raises is raised here. Raises `IndexError` for a CPU that is not there.
        """
        self.vcpus[index]
        if self.crew is None:
            self.check_thread("call")
            return action()
        return self.crew.threads[index].call(action)

    def post(self, action: Callable[[], None]) -> None:
        """Have `action` carried out between two instructions; from any thread, at once or soon.

        It runs in the thread of the CPUs, which are stopped meanwhile: at the latest after
        `vmm.core.run.runloop.SLICE` instructions. With a crew it runs in the calling thread, and
        is done when this returns; every CPU has stopped meanwhile, at the end of its block.
        """
        if self.crew is not None:
            self.crew.exclusively(action)
            return
        self._posted.put(action)
        self.current.instruction_limit = 0

    def wait_for_post(self) -> None:
        """Sleep until something is posted, and carry it out."""
        self._posted.get()()

    def run_posted(self) -> bool:
        """Carry out what was posted, in order; answers whether there was anything."""
        if self._posted.empty():
            return False
        while not self._posted.empty():
            self._posted.get()()
        return True

    # ---- memory

    def set_memory(self, slots: Iterable[MemorySlot]) -> None:
        """Replace the list of memory slots as a whole, at once.

        In the thread of the CPUs, while none of them runs, or from any thread where each has one
        of its own; every CPU sees the old list before and the new one afterwards. What no slot
        shows keeps its bytes. Raises `BadSlots`, with nothing changed, for slots that are not
        whole pages, overlap, reach beyond their backing or 4 GiB, or cover a local APIC's
        registers.
        """
        if self.crew is None:
            self.check_thread("set_memory")
        checked = self.check_memory(slots)
        self._between(lambda: self.replace_memory(checked))

    def check_memory(self, slots: Iterable[MemorySlot]) -> SlotList:
        """The list, if `set_memory` would take it; from any thread. Raises `BadSlots` if not."""
        checked = SlotList(slots, self.memory.slots.backings.values())
        for vcpu in self.vcpus:
            apic = vcpu.devices.apic
            base = 0 if apic is None else int(apic.base) & ~PAGE_MASK
            slot = checked.find(base) if base else None
            if slot is not None:
                raise BadSlots(f"slot {slot}: covers the local APIC's registers at {base:#x}")
        return checked

    def change_memory(self, slots: SlotList) -> None:
        """Replace the list by one that was checked before the next instruction, from any thread.

        Within an exit the engine still has to get to the end of its block, in code that the change
        drops: so it waits until the CPU has come out.
        """
        if self.crew is None or not self.crew.gate.is_mine():
            self.post(lambda: self.replace_memory(slots))
        else:
            self._posted.put(lambda: self.replace_memory(slots))
            self.crew.look(self.current.index)

    def replace_memory(self, slots: SlotList) -> None:
        """The same with a list that was checked: what the run loop does between instructions."""
        # What was queued is about memory as it was.
        self.current.queue.drain()
        for frames in changed_frames(self.memory.slots, slots):
            self.pages.forget_promises(frames)
        self.memory.replace(slots)
        for vcpu in self.vcpus:
            vcpu.forget_blocks()
        # As kvm_mmu_zap_all does: whatever the shadow knows may be somewhere else now.
        self.current.shadow.reset()

    def dirty_log(self, slot: MemorySlot) -> bytes:
        """Which pages of a slot that logs them were written, since this was asked last.

        Bit i of byte j is page 8 * j + i of the slot, as KVM_GET_DIRTY_LOG has it. What is told
        is cleared, in one step as far as any CPU can see. In the thread of the CPUs, while none
        of them runs, or from any thread where each has one of its own. Raises `BadSlots` for a
        slot that is not there, or does not log.
        """
        if self.crew is None:
            self.check_thread("dirty_log")
        return self._between(lambda: self._take_log(slot))

    def _take_log(self, slot: MemorySlot) -> bytes:
        pages, first = self.memory.log.take(slot)
        self.pages.catch_writes([first + page for page in pages])
        return bytes(bitmap_of(pages, slot))

    # ---- time and turns

    def now(self) -> int:
        """Virtual time in nanoseconds."""
        now: int = self.current.meter.now()
        return now

    @property
    def instructions(self) -> int:
        """The instructions of all CPUs so far."""
        return sum(vcpu.meter.instructions for vcpu in self.vcpus)

    def go_on_with(self, vcpu: Vcpu) -> None:
        """A saved machine goes on with this CPU, on tables as they were saved."""
        self.current = vcpu
        self.pages.cpu = vcpu.cpu

    def switch_to(self, vcpu: Vcpu) -> None:
        """Another CPU runs from now on, and time with it."""
        vcpu.meter.take_over(self.now())
        self._switch(vcpu, CODE_TOO)

    def _between(self, action: Callable[[], _Result]) -> _Result:
        """Carry out `action` while no CPU runs; in the CPUs' thread where they have no crew."""
        return action() if self.crew is None else self.crew.exclusively(action)

    def _switch(self, vcpu: Vcpu, how: int) -> None:
        """A CPU runs or works from now on: bring what it runs on up to date, as far as asked."""
        self.current = vcpu
        if how == AS_IT_IS:
            return
        vcpu.shadow.resume()
        if self.pages.code is not None:
            for frame in self.pages.code.take_stale(vcpu.index, how == CODE_TOO):
                vcpu.cpu.forget_code(frame)
