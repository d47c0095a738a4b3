"""How fast exits are served: exits per second by reason, measured on this machine.

Counts are exact; the seconds are this host's, so a rate is worth comparing only with
another of the same run. Repetitions are interleaved, and the median is reported.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.compare import NamedRun, queue_cost
from bench.inputs import Guest, RomChoice, machine_with
from vmm.core.errors import VmmError
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription

__all__ = ["SpeedRow", "measure_speed"]


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One guest with one ROM: the run, and the seconds of each repetition."""

    guest: str
    named: NamedRun
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the repetitions, in seconds."""
        return statistics.median(self.seconds)

    def rate(self, count: int) -> float:
        """`count` events as events a second."""
        return count / self.median

    @property
    def queue_cost(self) -> float | None:
        """ROM instructions per queued update."""
        return queue_cost(self.named.run)


def measure_speed(
    guests: list[tuple[Guest, str]],
    roms: list[RomChoice],
    description: MachineDescription,
    repetitions: int,
    progress: Callable[[str], None] = lambda _: None,
    watch: Callable[[int], None] | None = None,
) -> list[SpeedRow]:
    """Run every guest (with its command line) with every ROM, `repetitions` times over.

    Only the run itself is timed, not the building of the machine. `progress` is told
    what is run, `watch` the instructions during it. Raises KeyboardInterrupt when a run
    was interrupted, since part of a run has no rate; and `VmmError` when a guest fails
    or a count differs between repetitions: then the numbers would mean nothing.
    """
    pairs = [(guest, line, rom) for guest, line in guests for rom in roms]
    seconds: list[list[float]] = [[] for _ in pairs]
    runs: list[NamedRun | None] = [None] * len(pairs)
    for repetition in range(repetitions):
        for i, (guest, line, rom) in enumerate(pairs):
            progress(f"{guest.name}, ROM {rom.name}, {repetition + 1} of {repetitions}")
            machine = Machine(machine_with(replace(description, command_line=line), guest, rom))
            start = time.perf_counter()
            run = machine.run(watch)
            seconds[i].append(time.perf_counter() - start)
            if run.outcome.kind is OutcomeKind.INTERRUPTED:
                raise KeyboardInterrupt
            if not run.outcome.ok:
                raise VmmError(f"guest {guest.name} with ROM {rom.name}: {run.outcome}")
            before = runs[i]
            if before is not None and before.run != run:
                raise VmmError(f"guest {guest.name} with ROM {rom.name}: two runs differ")
            runs[i] = NamedRun(rom, run)
    return [
        SpeedRow(guest.name, named, tuple(times))
        for (guest, _, _), named, times in zip(pairs, runs, seconds, strict=True)
        if named is not None
    ]
