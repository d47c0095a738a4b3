"""The main result: one guest with several ROMs, and the exits that each saved."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.inputs import Guest, RomChoice, machine_with
from vmm.core.event import Reason
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import Policy
from vmm.engines import EngineName, create_machine
from vmm.kvm_machine import KvmMachine
from vmm.machine import Machine, MachineDescription, Run

__all__ = ["Comparison", "NamedRun", "Saving", "compare", "queue_cost"]

_QUEUED_CALLS = ("SetPxE", "SetPxELong", "UpdatePxE", "UpdatePxELong")


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run with the ROM it was made with."""

    rom: RomChoice
    run: Run


@dataclass(frozen=True, slots=True)
class Saving:
    """Exits saved against a baseline; negative where exits were added."""

    before: int
    after: int

    @property
    def saved(self) -> int:
        """Exits that did not happen."""
        return self.before - self.after

    @property
    def percent(self) -> float:
        """The share of the baseline's exits that was saved; 0 where it had none."""
        return 100 * self.saved / self.before if self.before else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of one guest, engine by engine; an engine's first run is its baseline.

    `policy` is that of engines which model a processor.
    """

    guest: str
    policy: Policy
    runs: tuple[NamedRun, ...]

    @property
    def baseline(self) -> Run:
        """The very first run."""
        return self.runs[0].run

    @property
    def engines(self) -> list[str]:
        """Their names, in the order of the runs."""
        return list(dict.fromkeys(named.run.engine for named in self.runs))

    def baseline_of(self, named: NamedRun) -> Run:
        """What a run is measured against: the first on the same engine."""
        return next(one.run for one in self.runs if one.run.engine == named.run.engine)

    @property
    def reasons(self) -> list[Reason]:
        """Every reason that occurred in any run, most frequent in the baseline first."""
        seen = {reason for named in self.runs for reason in named.run.ledger.by_reason}
        return sorted(seen, key=lambda reason: (-_count(self.baseline, reason), reason))

    def saving(self, named: NamedRun, reason: Reason | None = None) -> Saving:
        """What a run saved, in all or for one reason."""
        baseline = self.baseline_of(named)
        if reason is None:
            return Saving(baseline.ledger.total, named.run.ledger.total)
        return Saving(_count(baseline, reason), _count(named.run, reason))

    @property
    def ok(self) -> bool:
        """Did every guest pass its own checks?"""
        return all(named.run.outcome.ok for named in self.runs)


def _count(run: Run, reason: Reason) -> int:
    row = run.ledger.by_reason.get(reason)
    return 0 if row is None else row.count


def queue_cost(run: Run) -> float | None:
    """ROM instructions per queued page-table update, ring of the doorbell included.

    None where no update went through the queue.
    """
    used = [run.calls[name] for name in _QUEUED_CALLS if name in run.calls]
    updates = sum(use.count for use in used)
    if not run.paravirt.updates or not updates:
        return None
    return sum(use.instructions for use in used) / updates


def compare(
    guest: Guest,
    roms: Sequence[RomChoice],
    description: MachineDescription,
    progress: Callable[[str], None] = lambda _: None,
    watch: Callable[[int], None] | None = None,
    engines: Sequence[EngineName] = (EngineName.UNICORN,),
    started: Callable[[Machine | KvmMachine], None] = lambda _: None,
) -> Comparison:
    """Run the guest once on each engine with each ROM, on otherwise equal machines.

    `progress` is told the name of each ROM before its run, `watch` the instructions
    during it; `started` gets each machine that is about to run. A run that was
    interrupted is the last one.
    """
    runs: list[NamedRun] = []
    for engine, rom in itertools.product(engines, roms):
        progress(rom.name)
        about = machine_with(description, guest, rom)
        machine = create_machine(engine, about)
        started(machine)
        runs.append(NamedRun(rom, machine.run(watch)))
        if runs[-1].run.outcome.kind is OutcomeKind.INTERRUPTED:
            break
    return Comparison(guest.name, description.policy, tuple(runs))
