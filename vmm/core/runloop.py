"""The vCPU's run loop: enter the engine, see why it came back, go on or end."""

from collections.abc import Callable
from typing import Protocol

from vmm.core.bus import InterruptController
from vmm.core.errors import EngineFailure, TripleFault, Unsupported
from vmm.core.event import Event
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.core.stop import Stop
from vmm.core.timers import NEVER, Timers
from vmm.core.vcpu import Vcpu

__all__ = ["Engine", "PowerSwitch", "RunLoop"]

_INTERRUPT_FLAG = 0x200
_LONGEST_IDLE_NS = 600 * 1_000_000_000
"""A guest that sleeps longer is dead: its timers run, but wake nobody."""

SLICE = 2_000_000
"""Instructions between two looks at the world outside: a fraction of a second, and no exit."""


class Engine(Protocol):
    """What executes instructions."""

    def run(self, eip: int, instructions: int = 0) -> None:
        """Run from `eip` until the vCPU asks to stop, or for so many instructions."""
        ...


class PowerSwitch(Protocol):
    """Who can end the run from inside the machine."""

    @property
    def outcome(self) -> Outcome | None:
        """How the guest ended it, if it did."""
        ...


class RunLoop:
    """Runs one vCPU to the end of its guest."""

    def __init__(
        self,
        vcpu: Vcpu,
        engine: Engine,
        timers: Timers,
        interrupts: InterruptController,
        power: PowerSwitch,
    ) -> None:
        self._vcpu = vcpu
        self._engine = engine
        self._timers = timers
        self._interrupts = interrupts
        self._power = power
        timers.on_change = self._set_deadline

    def run(self, max_instructions: int, watch: Callable[[int], None] | None = None) -> Outcome:
        """Run until the guest ends or `max_instructions` have passed.

        `watch` is told, several times a second, how many instructions have passed; it
        may raise KeyboardInterrupt to end the run. Never raises for anything a guest
        can do; a guest that is stopped by Ctrl-C ends as `INTERRUPTED`, with all counts
        in place.
        """
        try:
            while True:
                if watch is not None:
                    watch(self._vcpu.meter.instructions)
                outcome = self._once(max_instructions)
                if outcome is not None:
                    return outcome
        except KeyboardInterrupt:
            return Outcome(OutcomeKind.INTERRUPTED, "stopped by the user")
        except TripleFault as fault:
            return Outcome(OutcomeKind.TRIPLE_FAULT, str(fault))
        except Unsupported as missing:
            return Outcome(OutcomeKind.UNSUPPORTED, str(missing))
        except EngineFailure as failure:
            return Outcome(OutcomeKind.ENGINE_FAILURE, str(failure))

    def _once(self, max_instructions: int) -> Outcome | None:
        vcpu = self._vcpu
        ended = self._power.outcome
        if ended is not None:
            return ended
        self._deliver_pending()
        self._set_deadline(self._timers.next_due())
        vcpu.instruction_limit = min(max_instructions, vcpu.meter.instructions + SLICE)
        vcpu.stop_reason = Stop.NONE
        self._engine.run(vcpu.cpu.eip())
        # What the engine ran behind the store that ended the machine, to the end of its
        # block, is nobody's business any more.
        ended = self._power.outcome
        if ended is not None:
            return ended
        if vcpu.error is not None:
            raise vcpu.error
        reason = Stop(vcpu.stop_reason)
        passed = vcpu.meter.instructions
        if reason in {Stop.LIMIT, Stop.DEADLINE, Stop.INTERRUPT}:
            # The block that was about to run was counted and will be again.
            vcpu.meter.leave_at(vcpu.cpu.eip())
        match reason:
            case Stop.LIMIT if passed >= max_instructions:
                return Outcome(OutcomeKind.LIMIT, f"{max_instructions} instructions have passed")
            case Stop.HALTED:
                return self._wait()
            case Stop.DEADLINE:
                # Time passes in whole blocks: with the block taken back it stands just
                # before the deadline, and would stand there for ever.
                vcpu.meter.charged_ns += max(0, vcpu.deadline - vcpu.meter.now())
                self._timer_interrupt()
            case Stop.NONE:
                raise EngineFailure(f"the engine stopped by itself at {vcpu.cpu.eip():#010x}")
        return None

    def _set_deadline(self, due: int) -> None:
        self._vcpu.deadline = due

    def _timer_interrupt(self) -> None:
        """Time is up: the guest is interrupted if a device has something for it."""
        quiet = not self._interrupts.pending
        self._timers.run_due(self._vcpu.meter.now())
        if quiet and self._interrupts.pending and self._vcpu.can_interrupt_now():
            self._vcpu.count_event(Event.INTERRUPT)

    def _deliver_pending(self) -> None:
        vcpu = self._vcpu
        if self._interrupts.pending:
            if vcpu.can_interrupt_now():
                if vcpu.window_wanted:
                    vcpu.count_event(Event.INTERRUPT_WINDOW)
                vcpu.window_wanted = False
                vcpu.interrupt(self._interrupts.acknowledge())
            else:
                vcpu.window_wanted = True
        vcpu.irq_pending = self._interrupts.pending

    def _wait(self) -> Outcome | None:
        """The guest has halted: jump to whatever wakes it."""
        vcpu = self._vcpu
        where = f"at {(vcpu.cpu.eip() - 1) & 0xFFFFFFFF:#010x}"
        if not vcpu.cpu.eflags() & _INTERRUPT_FLAG:
            return Outcome(OutcomeKind.HALTED, f"HLT with interrupts off {where}")
        since = vcpu.meter.now()
        while not self._interrupts.pending:
            due = self._timers.next_due()
            if due == NEVER or due - since > _LONGEST_IDLE_NS:
                return Outcome(OutcomeKind.HALTED, f"HLT with nothing to wait for {where}")
            vcpu.meter.charged_ns += max(0, due - vcpu.meter.now())
            self._timers.run_due(vcpu.meter.now())
        return None
