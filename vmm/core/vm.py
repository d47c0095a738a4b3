"""What the virtual CPUs of one machine share."""

from collections.abc import Callable, Mapping, Sequence
from mmap import mmap

from vmm.core.binding import EngineBinding
from vmm.core.bus import PortBus
from vmm.core.cpustate import CpuState
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
            vcpu.fault_mask = policy.fault_mask
            vcpu.lets_stray = policy.unsync
            vcpu.queue.peers = tuple(other.queue for other in self.vcpus if other is not vcpu)
        self.current = self.vcpus[0]

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
