"""What one exit costs on this host: the distribution by weight, and growth with their number."""

import resource
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.yardstick import WORKS, Work, load_work, run_work
from vmm.core.errors import VmmError
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription
from vmm.recording import ExitRecord

__all__ = ["PERCENTILES", "Costs", "Growth", "exit_costs", "growth"]

PERCENTILES = (10, 50, 90, 99)
_LIGHT, _HEAVY, _TABLE = "CPUID", "port reads", "fork storm"


@dataclass(frozen=True, slots=True)
class Costs:
    """One kind of exit: nanoseconds in the core at each of `PERCENTILES`, and all in all.

    `whole` is the guest's time for the exit, engine and all, in nanoseconds: the CPU time of
    a run by its exits.
    """

    name: str
    weight: str
    exits: int
    core: tuple[int, ...]
    whole: float


@dataclass(frozen=True, slots=True)
class Growth:
    """Exits, CPU seconds for them without start-up, and growth of peak memory in KiB."""

    exits: int
    seconds: float
    grown: int


class _Times:
    """An `ExitSink` that keeps the nanoseconds of one weight."""

    def __init__(self, *, heavy: bool) -> None:
        self._heavy = heavy
        self.values = array("Q")

    def take(self, _cpu: int, exits: Sequence[ExitRecord]) -> None:
        """Keep what took host time."""
        self.values.extend(
            host_ns
            for _, _, host_ns, _, heavy, *_ in exits
            if host_ns and bool(heavy) == self._heavy
        )


def _work(name: str) -> Work:
    return next(work for work in WORKS if work.name == name)


def exit_costs(
    about: MachineDescription,
    *,
    scale: float = 1.0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Costs]:
    """A light exit that does next to nothing, one that updates page tables, and a heavy one."""
    rows = []
    for name, heavy in ((_LIGHT, False), (_TABLE, False), (_HEAVY, True)):
        progress(f"exits: {name}")
        work = _work(name)
        guest = load_work(work)
        head, _, rounds = work.much.rpartition("=")
        line = f"{head}={max(2, round(int(rounds) * scale))}"
        little, small = run_work(guest, work.little, about)
        much, large = run_work(guest, line, about)
        exits = large.ledger.total - small.ledger.total
        times = _Times(heavy=heavy)
        machine = Machine(replace(about, guest=guest.image, command_line=line))
        machine.record(times, timing=True)
        machine.run()
        ordered = sorted(times.values)
        core = tuple(ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in PERCENTILES)
        weight = "heavy" if heavy else "light"
        rows.append(Costs(name, weight, exits, core, 1e9 * (much - little) / exits))
    return rows


def growth(
    about: MachineDescription,
    exits: int,
    steps: int = 2,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Growth]:
    """Runs of `exits` exits, ten times as many, and so on: time should grow as they do.

    The first run, which sets up what every run needs, is not among the results.
    """
    work = _work(_LIGHT)
    guest = load_work(work)
    run_work(guest, work.little, about)
    start_up, idle = run_work(guest, work.little, about)
    rows = []
    for step in range(steps):
        rounds = max(1, exits * 10**step // 100)
        progress(f"growth: {100 * rounds:,} exits")
        machine = Machine(replace(about, guest=guest.image, command_line=f"work=7 rounds={rounds}"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        run = machine.run()
        seconds = time.process_time() - start
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if run.outcome.kind is not OutcomeKind.PASSED:
            raise VmmError(f"guest {guest.name}: {run.outcome}")
        rows.append(Growth(run.ledger.total - idle.ledger.total, seconds - start_up, grown))
    return rows
