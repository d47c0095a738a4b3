"""Exits against queue capacity: how large a queue is worth its memory."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.inputs import Guest, RomChoice, load_rom
from vmi.queue import MAX_CAPACITY
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription, Run

__all__ = ["CAPACITIES", "QueuePoint", "sweep_queue"]

CAPACITIES = tuple(1 << i for i in range(MAX_CAPACITY.bit_length()))
"""1, 2, 4 ... 1024 records."""


@dataclass(frozen=True, slots=True)
class QueuePoint:
    """One guest with one queue capacity; without a ROM the capacity is none."""

    guest: str
    capacity: int | None
    run: Run


def sweep_queue(
    guests: list[Guest],
    description: MachineDescription,
    progress: Callable[[str], None] = lambda _: None,
    watch: Callable[[int], None] | None = None,
) -> list[QueuePoint]:
    """Each guest without a ROM, then with every capacity.

    `progress` is told what is run, `watch` the instructions during it. A run that was
    interrupted is the last one.
    """
    roms = [RomChoice("none"), *(load_rom("batching", capacity) for capacity in CAPACITIES)]
    points: list[QueuePoint] = []
    for guest in guests:
        for rom in roms:
            progress(f"{guest.name}, queue {rom.queue or 'none'}")
            machine = Machine(replace(description, guest=guest.image, rom=rom.image))
            run = machine.run(watch)
            points.append(QueuePoint(guest.name, rom.queue, run))
            if run.outcome.kind is OutcomeKind.INTERRUPTED:
                return points
    return points
