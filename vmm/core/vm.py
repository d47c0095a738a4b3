"""What the virtual CPUs of one machine share."""

import threading
from collections.abc import Callable, Mapping, Sequence
from mmap import mmap
from queue import SimpleQueue

from vmm.core.binding import EngineBinding
from vmm.core.bus import PortBus
from vmm.core.cpustate import CpuState
from vmm.core.errors import VcpuThreadError
from vmm.core.memory import GuestMemory
from vmm.core.policy import Policy
from vmm.core.shadowpages import ShadowPages
from vmm.core.vcpu import Vcpu
from vmm.core.windows import Windows

__all__ = ["MOST_CPUS", "Vm"]

MOST_CPUS = 8


class Vm:
    """Memory, shadow tables and the virtual CPUs that run on them, the first one first.

    Each of the `bindings` is an engine's CPU, all of which have `ram` at guest-physical
    address 0 and `pool` at `pool_address`. `cpuid` and `msrs` are as in
    `PrivilegedRegisters`; each CPU gets registers of its own.
    """

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
        for vcpu in self.vcpus:
            vcpu.faults.fault_mask = policy.fault_mask
            vcpu.faults.lets_stray = policy.unsync
            vcpu.queue.peers = tuple(other.queue for other in self.vcpus if other is not vcpu)
        self.current = self.vcpus[0]
        self._thread = threading.current_thread()
        self._posted: SimpleQueue[Callable[[], None]] = SimpleQueue()

    # ---- threads

    def bind(self) -> None:
        """The CPUs belong to the calling thread from now on; they must not be running."""
        self._thread = threading.current_thread()

    def check_thread(self, what: str) -> None:
        """Raises `VcpuThreadError` for a call from a thread that the CPUs do not belong to."""
        caller = threading.current_thread()
        if caller is not self._thread:
            raise VcpuThreadError(
                f"{what} from thread {caller.name!r}: the virtual CPUs belong to thread "
                f"{self._thread.name!r}"
            )

    def post(self, action: Callable[[], None]) -> None:
        """Have `action` carried out between two instructions; from any thread, at once or soon.

        It runs in the thread of the CPUs, which are stopped meanwhile: at the latest after
        `vmm.core.runloop.SLICE` instructions.
        """
        self._posted.put(action)
        self.current.instruction_limit = 0

    def run_posted(self) -> None:
        """Carry out what was posted, in order."""
        while not self._posted.empty():
            self._posted.get()()

    # ---- time and turns

    def now(self) -> int:
        """Virtual time in nanoseconds."""
        now: int = self.current.meter.now()
        return now

    @property
    def instructions(self) -> int:
        """The instructions of all CPUs so far."""
        return sum(vcpu.meter.instructions for vcpu in self.vcpus)

    def switch_to(self, vcpu: Vcpu) -> None:
        """Another CPU runs from now on, and time with it."""
        vcpu.meter.take_over(self.now())
        self.current = vcpu
        vcpu.shadow.resume()
        if self.pages.code is not None:
            for frame in self.pages.code.take_stale(vcpu.index):
                vcpu.cpu.forget_code(frame)
