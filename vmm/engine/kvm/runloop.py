"""The run loop on KVM: enter, serve, interrupt, and look at the world outside.

Time is the host's. What must happen at a time (a device's timer, a look at Ctrl-C) is
a kick that brings the vCPU out of the guest; between two there is nothing but KVM_RUN.
"""

from collections.abc import Callable

from vmm.core.bus import InterruptController
from vmm.core.event import Event
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.core.run.endings import ENDINGS, outcome_of
from vmm.core.run.runloop import PowerSwitch
from vmm.core.timers import NEVER, Timers
from vmm.engine.kvm.clock import HostClock
from vmm.engine.kvm.processor import KvmProcessor
from vmm.engine.kvm.uapi import Exit

__all__ = ["KvmRunLoop"]

_LOOK_NS = 100_000_000
"""Between two looks at the world outside."""
_LONGEST_IDLE_NS = 600 * 1_000_000_000
"""A guest that sleeps longer is dead, as on the other engine."""


class KvmRunLoop:
    """Runs one processor to the end of its guest."""

    def __init__(
        self,
        processor: KvmProcessor,
        clock: HostClock,
        timers: Timers,
        interrupts: InterruptController,
        power: PowerSwitch,
    ) -> None:
        self._processor = processor
        self._clock = clock
        self._timers = timers
        self._interrupts = interrupts
        self._power = power
        self._look_at = 0

    def run(self, watch: Callable[[int], None] | None = None) -> Outcome:
        """Run until the guest ends; errors of the guest's become outcomes.

        `watch` is called ten times a second, with 0 since KVM counts no instructions; it
        may raise KeyboardInterrupt. Raises `BadDescription` where the guest needs what this
        host cannot do, and `EngineFailure` in another thread than the vCPU's.
        """
        processor = self._processor
        processor.vcpu.check_thread()
        processor.remap()
        with processor.vcpu.kicker:
            self._timers.on_change = self._rearm
            try:
                return self._loop(watch)
            except KeyboardInterrupt:
                return Outcome(OutcomeKind.INTERRUPTED, "stopped by the user")
            except ENDINGS as error:
                return outcome_of(error)
            finally:
                self._timers.on_change = lambda _due: None

    def _loop(self, watch: Callable[[int], None] | None) -> Outcome:
        processor, returns = self._processor, self._processor.returns
        enter, serve = processor.enter, processor.serve
        hlt, kicked, window = int(Exit.HLT), int(Exit.INTR), int(Exit.IRQ_WINDOW_OPEN)
        self._look(watch)
        while True:
            if processor.irq_pending:
                self._interrupt()
            ended: Outcome | None = None
            reason = enter()
            returns[reason] += 1
            if reason == hlt:
                ended = self._wait()
            elif reason == kicked:
                ended = self._kicked(watch)
            elif reason == window:
                processor.count_event(Event.INTERRUPT_WINDOW)
            else:
                serve(reason)
            if processor.stopping:
                processor.stopping = False
                ended = self._power.outcome
            if ended is not None:
                return ended

    def _look(self, watch: Callable[[int], None] | None) -> None:
        """Ctrl-C, a time limit, the progress line; then run for another while."""
        self._look_at = self._clock.now() + _LOOK_NS
        if watch is not None:
            watch(0)
        self._rearm(self._timers.next_due())

    def _rearm(self, due: int) -> None:
        """Kick at the next timer or the next look."""
        self._processor.vcpu.kicker.after(min(due, self._look_at) - self._clock.now())

    def _kicked(self, watch: Callable[[int], None] | None) -> Outcome | None:
        processor = self._processor
        processor.vcpu.kicker.settle()
        quiet = not processor.irq_pending
        self._timers.run_due(self._clock.now())
        if quiet and processor.irq_pending and processor.can_interrupt:
            processor.count_event(Event.INTERRUPT)
        if self._clock.now() >= self._look_at:
            self._look(watch)
        else:
            self._rearm(self._timers.next_due())
        return self._sleep() if processor.asleep else None

    def _interrupt(self) -> None:
        """Deliver what is pending, or come back when that is possible."""
        processor = self._processor
        if processor.can_interrupt:
            processor.interrupt(self._interrupts.acknowledge())
            processor.irq_pending = self._interrupts.pending
        processor.want_window(processor.irq_pending)

    def _wait(self) -> Outcome | None:
        """The guest has halted: jump to whatever wakes it."""
        self._processor.count_halt()
        ended = self._sleep()
        if ended is None and not self._processor.irq_pending:
            return Outcome(OutcomeKind.HALTED, f"HLT with nothing to wait for {self._where()}")
        return ended

    def _sleep(self) -> Outcome | None:
        """Let time jump to the next interrupt of a device, if there will be one."""
        processor = self._processor
        if not processor.takes_interrupts:
            return Outcome(OutcomeKind.HALTED, f"HLT with interrupts off {self._where()}")
        since = self._clock.now()
        while not processor.irq_pending:
            due = self._timers.next_due()
            if due == NEVER or due - since > _LONGEST_IDLE_NS:
                return None
            self._clock.skip(due - self._clock.now())
            self._timers.run_due(self._clock.now())
        return None

    def _where(self) -> str:
        return f"at {(self._processor.eip() - 1) & 0xFFFFFFFF:#010x}"
