"""The latest event of each virtual CPU, in memory that anybody may read at any time.

As `struct kvm_run` has it for one exit: the CPU's side writes, the reader takes no lock and
stops nobody, in this process or in another one that has the same memory. What it reads is
never torn: a sequence number is odd while a record is written, and the reader tries again
unless it finds the same even number before and behind (a seqlock, as Linux calls it;
x86 keeps stores in order).

A record is eight quadwords in the order of `WORDS`, one cache line.
"""

import mmap
from dataclasses import dataclass

from vmm.core.event import REASON_OF, Event, Reason, Weight
from vmm.core.saved import Fields

__all__ = ["WORDS", "ExitRecords", "LatestExit"]

WORDS = ("sequence", "number", "event", "qualifier", "address", "weight")
"""The words of a record that are in use; the others are zero."""

_QUADS = 8


@dataclass(frozen=True, slots=True)
class LatestExit:
    """One event: the `number`th of its CPU, counted from 1.

    `qualifier` is what the reason says of it (a port access, an address, an error code: as in
    the places of a ledger), `address` that of the instruction, linear.
    """

    number: int
    event: Event
    qualifier: int
    address: int
    weight: Weight

    @property
    def reason(self) -> Reason | None:
        """Its exit reason; none for an engine event."""
        return REASON_OF.get(self.event)


class ExitRecords:
    """The records of `count` CPUs, in shared memory: a process that is forked sees them, too."""

    SAVED = Fields(host="_memory _words")

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, 8 * _QUADS * count)
        self._words = memoryview(self._memory).cast("Q")

    def of(self, cpu: int) -> memoryview:
        """The words of a CPU's record, for whoever writes it."""
        return self._words[_QUADS * cpu : _QUADS * (cpu + 1)]

    def latest(self, cpu: int) -> LatestExit | None:
        """The latest event of a CPU, or none yet; from any thread, without a lock.

        Raises `IndexError` for a CPU that is not there.
        """
        if not 0 <= cpu < len(self._words) // _QUADS:
            raise IndexError(f"virtual CPU {cpu}: expected 0 to {len(self._words) // _QUADS - 1}")
        record = self.of(cpu)
        while True:
            sequence = record[0]
            _, number, event, qualifier, address, weight, *_ = record.tolist()
            if not sequence & 1 and record[0] == sequence:
                break
        if not number:
            return None
        heavy = Weight.HEAVY if weight else Weight.LIGHT
        return LatestExit(number, Event(event), qualifier, address, heavy)
