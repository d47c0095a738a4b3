"""Every exit of a run one by one, for traces and times: what the core's recorders fill."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from vmm.core.cpu.vcpu import Vcpu
from vmm.core.policy import Policy
from vmm.core.recorder import Recorder

__all__ = ["ExitRecord", "ExitSink", "Recording"]


ExitRecord = tuple[int, int, int, int, int, int, int, int, int, int]
"""One exit; a plain tuple, since there are many.

(virtual_ns, charged_ns, host_ns, event, heavy, qualifier, eip, address, queued, drained):
the virtual time when it happened, what it took of that (port accesses do), what the core
and the devices took of the host's time, where that is measured; event, weight and
qualifier as the counters have them; the instruction's address; the guest-virtual address
of a fault or of a store to a page table, 0 for others; how many records lay in the batch
queue, and how many left it.
"""


class ExitSink(Protocol):
    """Who wants to see exits."""

    def take(self, cpu: int, exits: Sequence[ExitRecord]) -> None:
        """Some thousand exits of one CPU, in their order; must not raise."""
        ...


class Recording:
    """Hands the exits of some CPUs, under a policy, to sinks.

    With `timing` the host's clock is read twice an exit.
    """

    def __init__(
        self, vcpus: Sequence[Vcpu], policy: Policy, sinks: Sequence[ExitSink], *, timing: bool
    ) -> None:
        self._exits = {int(event) for event in policy.exits}
        self._sinks = sinks
        self._vcpus = vcpus
        for vcpu in vcpus:
            vcpu.counters.recorder = Recorder(
                vcpu.cpu, vcpu.meter, vcpu.queue, partial(self._take, vcpu), timing
            )

    def finish(self) -> None:
        """The run has ended: hand over what is left."""
        for vcpu in self._vcpus:
            vcpu.counters.recorder.finish()

    def _take(self, vcpu: Vcpu) -> None:
        exits = [row for row in vcpu.counters.recorder.take() if row[3] in self._exits]
        for sink in self._sinks:
            sink.take(vcpu.index, exits)
