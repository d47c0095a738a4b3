"""A hundred million exits: does each cost what the first ones did, and does memory grow?

Each kind of exit runs in stretches, each ten times as long as the one before. Meanwhile the
process's resident memory is sampled; what grows with exits shows between the second tenth of a
stretch and its last.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from bench.yardstick import WORKS, Work, load_work, run_work
from vmm.core.errors import VmmError
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription

__all__ = ["ENDURED", "Stretch", "endure", "steadiness"]

ENDURED = ("CPUID", "fork storm")
"""A light exit and nothing else; page-table writes, faults, CR3 loads and INVLPG."""
_MOST_INSTRUCTIONS = 1 << 62
_SAMPLE_SECONDS = 0.1
_STATM = Path("/proc/self/statm")
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True, slots=True)
class Stretch:
    """Exits of one kind in one run, and CPU seconds for them without start-up.

    `early` and `late` are the process's resident memory in KiB, the median of the samples of the
    second tenth of the run and of its last.
    """

    work: str
    exits: int
    seconds: float
    early: int
    late: int

    @property
    def each(self) -> float:
        """Microseconds an exit."""
        return 1e6 * self.seconds / self.exits


class _Memory:
    """Samples resident memory while a machine runs."""

    def __init__(self, watch: Callable[[int], None] | None) -> None:
        self._watch = watch
        self._due = 0.0
        self._samples: list[int] = []

    def watch(self, instructions: int) -> None:
        """For `Machine.run`: called some hundred times a second."""
        if self._watch is not None:
            self._watch(instructions)
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _SAMPLE_SECONDS
            self._samples.append(int(_STATM.read_text().split()[1]) * _PAGE_KIB)

    def tenth(self, number: int) -> int:
        """The median of the samples of one tenth of the run, in KiB."""
        count = len(self._samples)
        part = self._samples[number * count // 10 : (number + 1) * count // 10]
        return round(statistics.median(part or self._samples[-1:]))


def endure(
    about: MachineDescription,
    exits: int,
    steps: int = 3,
    *,
    progress: Callable[[str], None] = lambda _: None,
    watch: Callable[[int], None] | None = None,
) -> list[Stretch]:
    """About `exits` exits of each kind of `ENDURED`, ten times as many, and so on.

    `progress` is told what runs, `watch` the instructions meanwhile. Raises `VmmError` when a
    guest fails, KeyboardInterrupt when a run was interrupted.
    """
    stretches = []
    for work in (work for work in WORKS if work.name in ENDURED):
        guest = load_work(work)
        start_up, idle = run_work(guest, _line(work, 1), about)
        _, more = run_work(guest, _line(work, 11), about)
        a_round = (more.ledger.total - idle.ledger.total) / 10
        for step in range(steps):
            wanted = exits * 10**step
            progress(f"{work.name}: {wanted:,} exits")
            machine = Machine(
                replace(
                    about,
                    guest=guest.image,
                    command_line=_line(work, 1 + max(1, round(wanted / a_round))),
                    max_instructions=_MOST_INSTRUCTIONS,
                )
            )
            memory = _Memory(watch)
            start = time.process_time()
            run = machine.run(memory.watch)
            seconds = time.process_time() - start
            if run.outcome.kind is OutcomeKind.INTERRUPTED:
                raise KeyboardInterrupt
            if run.outcome.kind is not OutcomeKind.PASSED:
                raise VmmError(f"guest {guest.name}: {run.outcome}")
            stretches.append(
                Stretch(
                    work.name,
                    run.ledger.total - idle.ledger.total,
                    seconds - start_up,
                    memory.tenth(1),
                    memory.tenth(9),
                )
            )
    return stretches


def _line(work: Work, rounds: int) -> str:
    head, _, _ = work.much.rpartition("=")
    return f"{head}={rounds}"


def steadiness(stretches: list[Stretch]) -> list[float]:
    """The cost of an exit to that in the stretch before, where that was of the same kind."""
    return [
        later.each / earlier.each
        for earlier, later in pairwise(stretches)
        if earlier.work == later.work
    ]
