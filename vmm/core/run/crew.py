"""The host threads of a machine whose virtual CPUs run in parallel, and what keeps them apart.

The clock. Each CPU's time advances with its own instructions; whenever one works in the
core, it and the machine's clock become the later of the two. So no CPU ever sees time go
back, and CPUs that run side by side pass the same time together, as on hardware. How far
they are apart in between depends on the host, and so counts do not repeat.
"""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from vmm.core.cpu.gate import Gate
from vmm.core.cpu.sharedcpu import SharedCpu
from vmm.core.cpu.vcpu import Vcpu
from vmm.core.run.cputhread import CpuThread

__all__ = ["AS_IT_IS", "CODE_TOO", "TABLES", "Crew"]

AS_IT_IS, TABLES, CODE_TOO = range(3)
"""How far what a CPU runs on is brought up to date; as in `vmm.core.cpu.sharedcpu`."""

_Result = TypeVar("_Result")


class Crew:
    """One thread for each CPU. Made before the CPUs are, which are then `man`ned."""

    def __init__(self, count: int) -> None:
        self.gate = Gate(count)
        self.threads = [CpuThread(f"vcpu {i}") for i in range(count)]
        self.cells: list[SharedCpu] = []
        self.woken = [threading.Condition(self.gate.lock()) for _ in range(count)]
        self._vcpus: Sequence[Vcpu] = ()

    def man(
        self,
        vcpus: Sequence[Vcpu],
        next_flags: Sequence[int],
        switch: Callable[[Vcpu, int], None],
    ) -> None:
        """Put each CPU behind the gate; `next_flags` are addresses, as in `EngineBinding`.

        `switch(vcpu, how)` is that of `SharedCpu`.
        """
        self._vcpus = vcpus
        self.cells = [
            SharedCpu(vcpu, self.gate, flags, switch, self._tell_others)
            for vcpu, flags in zip(vcpus, next_flags, strict=True)
        ]

    def _tell_others(self, vcpu: Vcpu | None) -> None:
        """Shadow tables were dropped, or code was changed: who runs on it must look first."""
        for other in self._vcpus:
            if other is not vcpu:
                other.cpu.tlb_behind = True

    def exclusively(self, action: Callable[[], _Result]) -> _Result:
        """Carry out `action` while no CPU runs; from any thread, and at once."""
        if self.gate.is_mine():
            # From within an exit, which may have let the others run on.
            return action() if self.gate.is_closed() else self._stopped(action)
        self.gate.acquire()
        try:
            return self._stopped(action)
        finally:
            self.gate.release()

    def _stopped(self, action: Callable[[], _Result]) -> _Result:
        """Carry out `action`, with the turn, while no CPU is in guest code."""
        self.gate.stop_others(-1)
        try:
            return action()
        finally:
            self.gate.note_outsider()
            self._tell_others(None)
            self.gate.go_on()

    def attend(self, index: int) -> None:
        """A CPU's interrupt line or deadline has changed: have it notice, asleep or not."""
        if self.cells:
            self.cells[index].attend()
        if self.gate.is_mine():
            self.woken[index].notify()

    def look(self, index: int) -> None:
        """Have a CPU come out of guest code, or wake up: something is asked of it."""
        self.cells[index].look()
        if self.gate.is_mine():
            self.woken[index].notify()

    def sleep(self, index: int) -> None:
        """Sleep until `attend` or `look`; with the turn, which others have meanwhile."""
        self.woken[index].wait()
        self.gate.noted()

    def close(self) -> None:
        """End the threads."""
        for thread in self.threads:
            thread.close()
