"""The run loop of a machine whose virtual CPUs have a host thread each.

What `vmm.core.run.runloop` does for all CPUs in turn, each thread does for its own: see why the
engine came back, go on or end. A CPU that has halted sleeps on a condition until an
interrupt, a start-up or the end of the run wakes it. The last one to fall asleep moves
virtual time on to the next timer; where no timer is left the run ends, unless somebody
outside has said that there is more to come (`waits`).

Counts do not repeat: which CPU takes a lock first is the host's choice.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial

from vmm.core.errors import EngineFailure
from vmm.core.event import Event
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.core.processor import Activity, Processor
from vmm.core.run.crew import Crew
from vmm.core.run.endings import ENDINGS, outcome_of
from vmm.core.run.runloop import INTERRUPT_FLAG, LONGEST_IDLE_NS, PowerSwitch, RunLoop
from vmm.core.run.stop import Stop
from vmm.core.run.swallowed import stopping_at_errors
from vmm.core.timers import NEVER, Timers
from vmm.core.vm import Vm

__all__ = ["ThreadedRun"]

SLICE = 200_000
"""Instructions between two looks at the clock of the others: how far they may be apart."""

_FEW = 64
"""Instructions that a CPU runs alone, to get past one that cannot be atomic otherwise."""

_WATCH_SECONDS = 0.25


class ThreadedRun:
    """Runs the virtual CPUs of a machine in parallel to the end of their guest."""

    def __init__(
        self,
        vm: Vm,
        crew: Crew,
        processors: Sequence[Processor],
        timers: Timers,
        power: PowerSwitch,
    ) -> None:
        self._vm = vm
        self._crew = crew
        self._gate = crew.gate
        self._processors = processors
        self._timers = timers
        self._power = power
        self._waits = False
        self._most = 0
        self._asleep = 0
        self._outcome: Outcome | None = None
        self._failure: BaseException | None = None
        self._over = threading.Event()
        timers.on_change = self._set_deadline
        for processor in processors:
            processor.look = partial(crew.look, processor.vcpu.index)

    def run(
        self,
        max_instructions: int,
        watch: Callable[[int], None] | None = None,
        *,
        waits: bool = False,
    ) -> Outcome:
        """Run until the guest ends or `max_instructions` have passed, of all CPUs together.

        As `RunLoop.run`, from a thread that is none of the CPUs'. With `waits` a machine all of
        whose CPUs have halted waits for a call from outside.
        """
        self._most, self._waits = max_instructions, waits
        runs = [
            thread.start(partial(self._life, processor))
            for thread, processor in zip(self._crew.threads, self._processors, strict=True)
        ]
        try:
            while True:
                if watch is not None:
                    watch(self._vm.instructions)
                if self._over.wait(_WATCH_SECONDS):
                    break
        except KeyboardInterrupt:
            self.stop()
        except ENDINGS as error:
            self._crew.exclusively(partial(self._end, outcome_of(error)))
        finally:
            if not self._over.is_set():
                self.stop()
            for life in runs:
                life.result()
        if self._failure is not None:
            raise self._failure
        assert self._outcome is not None  # noqa: S101 - no life ends without
        return self._outcome

    def stop(self) -> None:
        """End the run, from any thread; one that has not begun ends at once when it does."""
        stopped = Outcome(OutcomeKind.INTERRUPTED, "stopped by the user")
        self._crew.exclusively(lambda: self._end(stopped))

    # ---- all below with the turn

    def _end(self, outcome: Outcome) -> None:
        if self._outcome is None:
            self._outcome = outcome
        for processor in self._processors:
            self._crew.look(processor.vcpu.index)
        self._over.set()

    def _set_deadline(self, due: int) -> None:
        for processor in self._processors:
            processor.vcpu.deadline = due
            self._crew.cells[processor.vcpu.index].attend()

    def _life(self, processor: Processor) -> None:
        """What a CPU's thread does from the start of a run to its end."""
        self._gate.acquire()
        try:
            with stopping_at_errors(processor.vcpu.fail):
                while self._outcome is None:
                    ended = self._once(processor)
                    if ended is not None:
                        self._end(ended)
        except ENDINGS as error:
            self._end(outcome_of(error))
        except BaseException as error:  # noqa: BLE001 - it is raised where the run was asked for
            self._failure = self._failure or error
            self._end(Outcome(OutcomeKind.INTERRUPTED, str(error)))
        finally:
            self._gate.release()

    def _once(self, processor: Processor) -> Outcome | None:
        ended = self._power.outcome
        if ended is not None:
            return ended
        if not processor.can_run:
            return self._sleep(processor)
        cell = self._crew.cells[processor.vcpu.index]
        self._prepare(processor)
        if cell.wants_alone:
            cell.run_alone(processor.engine)
        else:
            cell.run(processor.engine)
        cell.take(False, False)
        try:
            return self._came_back(processor)
        finally:
            cell.give(False)

    def _prepare(self, processor: Processor) -> None:
        vcpu, cell = processor.vcpu, self._crew.cells[processor.vcpu.index]
        alone = cell.wants_alone
        self._gate.stop_others(vcpu.index)
        try:
            cell.take(True, True)
            try:
                self._vm.run_posted()
                processor.begin()
                RunLoop.deliver_pending(processor)
                vcpu.deadline = self._timers.next_due()
                before = vcpu.meter.instructions
                elsewhere = self._vm.instructions - before
                vcpu.instruction_limit = min(
                    max(0, self._most - elsewhere), before + (_FEW if alone else SLICE)
                )
                vcpu.stop_reason = Stop.NONE
                if vcpu.ports.met:
                    vcpu.ports.begin_step()
                vcpu.rearm()
            finally:
                cell.give(True)
        finally:
            self._gate.go_on()

    def _came_back(self, processor: Processor) -> Outcome | None:
        """Why did the engine?"""
        vcpu = processor.vcpu
        vcpu.ports.end_step()
        ended = self._power.outcome
        if ended is not None:
            return ended
        if vcpu.error is not None:
            raise vcpu.error
        reason = Stop(vcpu.stop_reason)
        passed = self._vm.instructions
        if reason in {Stop.LIMIT, Stop.DEADLINE, Stop.INTERRUPT, Stop.PORT}:
            # The block that was about to run was counted and will be again.
            vcpu.meter.leave_at(vcpu.cpu.linear(vcpu.cpu.eip()))
        match reason:
            case Stop.LIMIT if passed >= self._most:
                return Outcome(OutcomeKind.LIMIT, f"{self._most} instructions have passed")
            case Stop.HALTED:
                processor.activity = Activity.HALTED
            case Stop.DEADLINE:
                if self._timers.next_due() <= vcpu.deadline:
                    vcpu.meter.charged_ns += max(0, vcpu.deadline - vcpu.meter.now())
                    quiet = not processor.interrupts.pending
                    self._timers.run_due(self._vm.now())
                    if quiet and processor.interrupts.pending and vcpu.can_interrupt_now():
                        vcpu.count_event(Event.INTERRUPT)
            case Stop.INTERRUPT if not vcpu.window_wanted:
                # From another CPU, or a timer that ran in another thread.
                vcpu.count_event(Event.INTERRUPT)
            case Stop.PORT:
                vcpu.ports.met = True
            case Stop.FORGET:
                vcpu.retranslate()
            case Stop.NONE:
                raise EngineFailure(f"the engine stopped by itself at {vcpu.cpu.eip():#010x}")
        return None

    # ---- asleep

    def _sleep(self, processor: Processor) -> Outcome | None:
        """Until the CPU can run, or the run is over."""
        self._asleep += 1
        try:
            if self._asleep == len(self._processors):
                ended = self._idle(processor)
                if ended is not None:
                    return ended
            if not processor.can_run and self._outcome is None:
                self._crew.sleep(processor.vcpu.index)
        finally:
            self._asleep -= 1
        return None

    def _idle(self, processor: Processor) -> Outcome | None:
        """Every CPU has halted: jump to whatever wakes one."""
        vcpu, cell = processor.vcpu, self._crew.cells[processor.vcpu.index]
        where = f"at {(vcpu.cpu.eip() - 1) & 0xFFFFFFFF:#010x}"
        if self._waits:
            hopeless = None
        elif not self._can_any_be_woken():
            hopeless = Outcome(OutcomeKind.HALTED, f"HLT with interrupts off {where}")
        else:
            hopeless = Outcome(OutcomeKind.HALTED, f"HLT with nothing to wait for {where}")
        cell.take(False, False)
        try:
            since = vcpu.meter.now()
            while not any(other.can_run for other in self._processors):
                due = self._timers.next_due()
                if due == NEVER or due - since > LONGEST_IDLE_NS or not self._can_any_be_woken():
                    return hopeless
                vcpu.meter.charged_ns += max(0, due - vcpu.meter.now())
                self._timers.run_due(vcpu.meter.now())
        finally:
            cell.give(False)
        for other in self._processors:
            if other.can_run:
                self._crew.attend(other.vcpu.index)
        return None

    def _can_any_be_woken(self) -> bool:
        return any(
            other.can_run
            or (other.activity is Activity.HALTED and other.vcpu.cpu.eflags() & INTERRUPT_FLAG)
            for other in self._processors
        )
