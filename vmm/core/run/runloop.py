"""The run loop: let each virtual CPU run in its turn, see why it came back, go on or end.

One host thread runs all CPUs, round robin. A turn is a stretch of virtual time; a CPU
that halts, or spins on PAUSE, ends its own early. So counts repeat, and what one CPU
does between two stops is atomic to the others: a locked instruction is, for one.

There is one clock. It advances with the CPU that runs, and every CPU's time-stamp
counter is that clock: the counters never disagree, and a CPU that waits for its turn
sees time pass as a guest on a busy host does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vmm.core.errors import EngineFailure
from vmm.core.event import Event
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.core.processor import Activity, Processor
from vmm.core.run.endings import ENDINGS, outcome_of
from vmm.core.run.stop import Stop
from vmm.core.run.swallowed import stopping_at_errors
from vmm.core.saved import CUSTOM, FLAG, U64, Fields
from vmm.core.timers import NEVER, Timers
from vmm.core.vm import Vm

__all__ = ["EXITS_LOOK", "TURN_NS", "Limits", "PowerSwitch", "RunLoop"]

INTERRUPT_FLAG = 0x200
LONGEST_IDLE_NS = 600 * 1_000_000_000
"""A guest that sleeps longer is dead: its timers run, but wake nobody."""

SLICE = 2_000_000
"""Instructions between two looks at the world outside: a fraction of a second, and no exit."""

EXITS_LOOK = 10_000
"""Instructions between two looks at the count of exits, where it is limited."""

TURN_NS = 20_000
"""How long a CPU runs before the next one may, where there are several."""

_SPIN_LIMIT = 8
"""A CPU that has executed PAUSE so often in its turn loses the rest of it to another one."""


class PowerSwitch(Protocol):
    """Who can end the run from inside the machine."""

    @property
    def outcome(self) -> Outcome | None:
        """How the guest ended it, if it did."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Where to leave a run, so that it can go on as if it never had been left.

    `instructions` are those of all CPUs together, `exits` those of the policy, which
    are looked at every `EXITS_LOOK` instructions; `virtual_ns` is virtual time.
    """

    instructions: int
    exits: int | None = None
    virtual_ns: int | None = None


class RunLoop:
    """Runs the virtual CPUs of a machine, the first one first, to the end of their guest.

    `exits` answers how many exits there were so far.
    """

    SAVED = Fields(
        {CUSTOM: "_current", U64: "_turn_end _slice_end", FLAG: "_midway"},
        wiring="_vm _processors _alone _timers _power _exits",
        host="_limits _left _look _waits",
    )

    def __init__(
        self,
        vm: Vm,
        processors: Sequence[Processor],
        timers: Timers,
        power: PowerSwitch,
        exits: Callable[[], int] = lambda: 0,
    ) -> None:
        self._vm = vm
        self._processors = processors
        self._alone = len(processors) == 1
        self._current = processors[0]
        self._turn_end = 0 if self._alone else TURN_NS
        self._timers = timers
        self._power = power
        self._exits = exits
        self._waits = False
        self._midway = False
        self._slice_end = 0
        self._limits = Limits(0)
        self._left: Outcome | None = None
        self._look = NEVER
        timers.on_change = self._set_deadline

    def _save_current(self) -> int:
        """For `vmm.core.saved`."""
        return self._processors.index(self._current)

    def _load_current(self, value: int) -> None:
        """The same."""
        if value not in range(len(self._processors)):
            raise ValueError(f"CPU {value!r}")
        self._current = self._processors[value]

    def leave(self, outcome: Outcome) -> None:
        """End the run with this outcome before the next block, where it can go on later.

        For a device or a listener, while the guest is out of the engine.
        """
        if self._left is None:
            self._left = outcome
        self._current.vcpu.instruction_limit = 0

    def run(
        self,
        limits: int | Limits,
        watch: Callable[[int], None] | None = None,
        *,
        waits: bool = False,
    ) -> Outcome:
        """Run until the guest ends or a limit is reached; a number is of instructions.

        `watch` is told, several times a second, how many instructions have passed; it
        may raise KeyboardInterrupt to end the run. Never raises for anything a guest
        can do; a guest that is stopped by Ctrl-C ends as `INTERRUPTED`, with all counts
        in place. With `waits` a machine all of whose CPUs have halted, with no timer left,
        sleeps until a call from another thread (`Vm.post`) instead of ending.
        """
        self._waits = waits
        self._limits = limits if isinstance(limits, Limits) else Limits(limits)
        self._look = NEVER
        try:
            with stopping_at_errors(self._fail):
                while True:
                    if watch is not None:
                        watch(self._vm.instructions)
                    outcome = self._reached() or self._once()
                    if outcome is not None:
                        return outcome
        except KeyboardInterrupt:
            return Outcome(OutcomeKind.INTERRUPTED, "stopped by the user")
        except ENDINGS as error:
            return outcome_of(error)

    def _fail(self, error: EngineFailure) -> None:
        self._current.vcpu.fail(error)

    def _reached(self) -> Outcome | None:
        """Has somebody asked to leave here, or is a limit of exits reached?"""
        left, self._left = self._left, None
        if left is not None and self._power.outcome is None:
            return left
        wanted = self._limits.exits
        if wanted is not None:
            if self._exits() >= wanted:
                return Outcome(OutcomeKind.LIMIT, f"{wanted} exits have happened")
            self._look = self._vm.instructions + EXITS_LOOK
        return None

    def _once(self) -> Outcome | None:
        if self._vm.run_posted():
            self._midway = False
        ended = self._power.outcome
        if ended is not None:
            return ended
        if not self._midway:
            self._begin_slice()
        self._midway = False
        limits = self._limits
        processor = self._current
        vcpu = processor.vcpu
        self._set_deadline(self._timers.next_due())
        passed_elsewhere = self._vm.instructions - vcpu.meter.instructions
        most = min(limits.instructions, self._look)
        vcpu.instruction_limit = min(max(0, most - passed_elsewhere), self._slice_end)
        vcpu.stop_reason = Stop.NONE
        if vcpu.ports.met:
            vcpu.ports.begin_step()
        processor.engine.run(vcpu.cpu.eip())
        vcpu.ports.end_step()
        # What the engine ran behind the store that ended the machine, to the end of its
        # block, is nobody's business any more.
        ended = self._power.outcome
        if ended is not None:
            return ended
        if vcpu.error is not None:
            raise vcpu.error
        reason = Stop(vcpu.stop_reason)
        passed, reached = self._vm.instructions, vcpu.meter.instructions
        if reason in {Stop.LIMIT, Stop.DEADLINE, Stop.INTERRUPT, Stop.PORT}:
            # The block that was about to run was counted and will be again.
            vcpu.meter.leave_at(vcpu.cpu.linear(vcpu.cpu.eip()))
        match reason:
            case Stop.LIMIT:
                self._midway = reached < self._slice_end
                if passed >= limits.instructions:
                    return Outcome(
                        OutcomeKind.LIMIT, f"{limits.instructions} instructions have passed"
                    )
            case Stop.HALTED:
                processor.activity = Activity.HALTED
                if not any(other.can_run for other in self._processors):
                    return self._wait()
            case Stop.DEADLINE:
                if self._timers.next_due() <= vcpu.deadline:
                    # Time passes in whole blocks: with the block taken back it stands just
                    # before the deadline, and would stand there for ever.
                    vcpu.meter.charged_ns += max(0, vcpu.deadline - vcpu.meter.now())
                    self._timer_interrupt()
                elif limits.virtual_ns is not None and (
                    self._alone or vcpu.deadline < self._turn_end
                ):
                    self._midway = True
                    return Outcome(
                        OutcomeKind.LIMIT, f"{limits.virtual_ns} ns of virtual time have passed"
                    )
                else:
                    self._turn_end = 0
            case Stop.PORT:
                vcpu.ports.met = True
            case Stop.FORGET:
                vcpu.retranslate()
                self._midway = reached < self._slice_end
            case Stop.YIELD:
                self._turn_end = 0
            case Stop.NONE:
                raise EngineFailure(f"the engine stopped by itself at {vcpu.cpu.eip():#010x}")
        return None

    def _begin_slice(self) -> None:
        """Whose turn is it, and is there an interrupt to begin with?

        Not done where a run was left within a slice: who waits for an interrupt window is
        seen here, and leaving must not change that.
        """
        if not self._alone:
            self._choose()
        processor = self._current
        processor.begin()
        self.deliver_pending(processor)
        self._slice_end = processor.vcpu.meter.instructions + SLICE

    # ---- turns

    def _choose(self) -> None:
        """Whose turn is it? The current CPU's until its turn is over, or it cannot run."""
        current = self._current
        if self._vm.now() < self._turn_end and current.can_run:
            return
        count = len(self._processors)
        at = self._processors.index(current)
        for i in range(1, count + 1):
            candidate = self._processors[(at + i) % count]
            if candidate.can_run:
                break
        self._switch_to(candidate)
        vcpu = candidate.vcpu
        vcpu.spins = 0
        others = any(other.can_run for other in self._processors if other is not candidate)
        vcpu.spin_limit = _SPIN_LIMIT if others else 0
        self._turn_end = self._vm.now() + TURN_NS

    def _switch_to(self, processor: Processor) -> None:
        vcpu = processor.vcpu
        if processor is self._current:
            return
        self._current.line_was = self._current.interrupts.pending
        self._vm.switch_to(vcpu)
        self._current = processor
        # It was about to run when somebody interrupted it from another CPU, or a device did.
        if (
            processor.interrupts.pending
            and not processor.line_was
            and processor.activity is Activity.RUNNING
            and vcpu.can_interrupt_now()
        ):
            vcpu.count_event(Event.INTERRUPT)

    # ---- time and interrupts

    def _set_deadline(self, due: int) -> None:
        if self._limits.virtual_ns is not None:
            due = min(due, self._limits.virtual_ns)
        self._current.vcpu.deadline = due if self._alone else min(due, self._turn_end)

    def _timer_interrupt(self) -> None:
        """Time is up: the guest is interrupted if a device has something for it."""
        processor = self._current
        quiet = not processor.interrupts.pending
        self._timers.run_due(self._vm.now())
        if quiet and processor.interrupts.pending and processor.vcpu.can_interrupt_now():
            processor.vcpu.count_event(Event.INTERRUPT)

    @staticmethod
    def deliver_pending(processor: Processor) -> None:
        """An interrupt or NMI that the CPU can take now is delivered, another one noted."""
        vcpu, interrupts = processor.vcpu, processor.interrupts
        processor.take_nmi()
        if interrupts.pending:
            if vcpu.can_interrupt_now():
                if vcpu.window_wanted:
                    vcpu.count_event(Event.INTERRUPT_WINDOW)
                vcpu.window_wanted = False
                vcpu.interrupt(interrupts.acknowledge())
            else:
                vcpu.window_wanted = True
        vcpu.irq_pending = interrupts.pending

    def _wait(self) -> Outcome | None:
        """Every CPU has halted: jump to whatever wakes one."""
        vcpu = self._current.vcpu
        where = f"at {(vcpu.cpu.eip() - 1) & 0xFFFFFFFF:#010x}"
        if not self._waits and not any(
            other.activity is Activity.HALTED and other.vcpu.cpu.eflags() & INTERRUPT_FLAG
            for other in self._processors
        ):
            return Outcome(OutcomeKind.HALTED, f"HLT with interrupts off {where}")
        since = vcpu.meter.now()
        while not any(other.can_run for other in self._processors):
            due = self._timers.next_due()
            if due == NEVER or due - since > LONGEST_IDLE_NS:
                if self._waits:
                    self._vm.wait_for_post()
                    continue
                return Outcome(OutcomeKind.HALTED, f"HLT with nothing to wait for {where}")
            vcpu.meter.charged_ns += max(0, due - vcpu.meter.now())
            self._timers.run_due(vcpu.meter.now())
        return None
