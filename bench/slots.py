"""How fast a guest's page frame is found, by the number of memory slots.

The core finds a frame it knows in a table, and one that it does not know by bisection of the slots.
Both are compiled. What bisection is worth over a search of the whole list, which is how such lists
began, is measured with the same search written twice in Python.
"""

import random
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from vmi.address import PAGE_SHIFT, PAGE_SIZE
from vmm.core.memory import GuestMemory
from vmm.core.slots import MemorySlot, SlotList, lay_out

__all__ = ["SLOT_COUNTS", "SlotRow", "measure_slots", "spread_slots"]

SLOT_COUNTS = (1, 10, 100, 1000, 10_000)

_BACKING = 16
"""Pages that all slots show, over and over."""
_STRIDE = 8
_DEVICES = 64
_LEAST_FRAMES = 1 << 14
_KNOWN = 500_000
_SEARCHED = 20_000
_LEAST_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class SlotRow:
    """Lookups a second with so many slots.

    `memory`, `nothing` and `device` are frames that the table knows, by what is there; `first`
    are frames that it does not, in no order. `bisection` and `linear` are in Python, whatever the
    core is. `changes` are whole lists checked and put in place a second.
    """

    slots: int
    memory: float
    nothing: float
    device: float
    first: float
    bisection: float
    linear: float
    changes: float


def spread_slots(count: int, seed: int = 1) -> list[MemorySlot]:
    """`count` slots of one to four pages, eight pages apart, in no order."""
    chance = random.Random(seed)  # noqa: S311 - the same ones each time
    slots = []
    for number in range(count):
        pages = chance.randrange(1, 5)
        offset = chance.randrange(_BACKING - pages + 1)
        slots.append(
            MemorySlot(
                number * _STRIDE << PAGE_SHIFT, pages << PAGE_SHIFT, offset=offset << PAGE_SHIFT
            )
        )
    chance.shuffle(slots)
    return slots


def measure_slots(
    counts: Sequence[int] = SLOT_COUNTS,
    *,
    scale: float = 1.0,
    progress: Callable[[str], None] = lambda _what: None,
) -> list[SlotRow]:
    """A row for each number of slots; `scale` times as many lookups as usual."""
    rows = []
    for count in counts:
        progress(f"{count} slots")
        rows.append(_measure(count, scale))
    return rows


def _measure(count: int, scale: float) -> SlotRow:
    given = spread_slots(count)
    backings = lay_out([("ram", _BACKING * PAGE_SIZE)])
    listed = SlotList(given, backings)
    memory = GuestMemory(bytearray(_BACKING * PAGE_SIZE), listed)
    # Behind the four pages of a slot there may be a device, and behind that is nothing.
    devices = [number * _STRIDE + 4 for number in range(0, count, max(1, count // _DEVICES))]
    memory.know_devices(devices)
    chance = random.Random(2)  # noqa: S311 - as above

    def some(frames: Sequence[int]) -> "array[int]":
        return array("I", chance.choices(frames, k=max(1, int(_KNOWN * scale))))

    starts = [slot.address >> PAGE_SHIFT for slot in given]
    gaps = [start + 6 for start in starts]
    known = {
        name: _rate(partial(memory.count_ram, frames), len(frames))
        for name, frames in (
            ("memory", some(starts)),
            ("nothing", some(gaps)),
            ("device", some(devices)),
        )
    }
    every = list(range(max(_LEAST_FRAMES, count * _STRIDE)))
    chance.shuffle(every)
    unknown = array("I", every)
    searched = [
        frame << PAGE_SHIFT
        for frame in chance.choices([*starts, *gaps], k=max(1, int(_SEARCHED * scale)))
    ]
    # A search of the whole list takes time in proportion to it.
    fewer = searched[: max(10, len(searched) * 10 // max(10, count))]
    return SlotRow(
        count,
        **known,
        first=_rate(lambda: memory.count_ram(unknown), len(unknown), before=memory.forget),
        bisection=_rate(lambda: [listed.find(address) for address in searched], len(searched)),
        linear=_rate(lambda: [_search(given, address) for address in fewer], len(fewer)),
        changes=_rate(lambda: memory.replace(SlotList(given, backings)), 1),
    )


def _search(slots: Sequence[MemorySlot], address: int) -> MemorySlot | None:
    for slot in slots:
        if slot.address <= address < slot.end:
            return slot
    return None


def _rate(
    work: Callable[[], object], count: int, before: Callable[[], object] = lambda: None
) -> float:
    """Lookups a second: the best of some rounds, each of at least a fiftieth of a second."""
    before()
    work()
    best = 0.0
    for _ in range(3):
        spent, done = 0, 0
        while spent < _LEAST_SECONDS * 1e9:
            before()
            start = time.perf_counter_ns()
            work()
            spent += time.perf_counter_ns() - start
            done += count
        best = max(best, done * 1e9 / spent)
    return best
