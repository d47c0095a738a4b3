"""The ledger as tables: by reason with times, by port, by guest address, by instruction.

Each view has a schema with a name and a version: its columns keep their names, meaning
and order as long as the version stays, in JSON and in CSV alike.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.costs import Model, Range, Unit, estimate
from bench.exittimes import ExitTimes
from bench.symbols import SymbolMap
from vmm.core.event import REASON_OF, Event, Reason, Weight
from vmm.core.ledger import Ledger, ReasonCount
from vmm.recording import ExitRecord

__all__ = [
    "ADDRESSES",
    "INSTRUCTIONS",
    "PORTS",
    "STAT",
    "VIEWS",
    "FaultPages",
    "Schema",
    "View",
    "by_address",
    "by_instruction",
    "by_port",
    "ranked",
    "stat",
]

_PAGE = 0xFFFFF000


@dataclass(frozen=True, slots=True)
class Schema:
    """A view's name with its version, what it is, and {column: meaning} in their order."""

    name: str
    summary: str
    columns: dict[str, str]


STAT = Schema(
    "vmirom.stat/1",
    "Exits by reason with times, in the shape of `perf kvm stat report`.",
    {
        "vm_exit": "the exit reason",
        "samples": "exits",
        "samples_percent": "the share of all exits",
        "time_percent": "the share of the time of all exits",
        "min": "the least that one exit took, or the low end of the model's range",
        "max": "the most, or the high end",
        "avg": "the mean, or the model's typical value",
        "unit": "of the three: `us` or `cycles`",
        "error_percent": "the standard error of a measured mean; empty for a model",
    },
)
PORTS = Schema(
    "vmirom.ports/1",
    "Port accesses that exited.",
    {
        "port": "the port",
        "size": "bytes",
        "direction": "`in` or `out`",
        "exits": "exits",
        "percent": "the share of all exits",
    },
)
ADDRESSES = Schema(
    "vmirom.addresses/1",
    "Guest pages whose access exited: the faulting ones, the page tables stored to, device memory.",
    {
        "reason": "the exit reason",
        "space": "`virtual` or `physical`: what the address is",
        "address": "the page's address",
        "exits": "exits",
        "percent": "the share of all exits",
    },
)
INSTRUCTIONS = Schema(
    "vmirom.instructions/1",
    "Instructions that exited.",
    {
        "eip": "the instruction's address",
        "symbol": "the symbol it lies in; empty where none is known",
        "reasons": "its exit reasons, joined by +",
        "exits": "exits",
        "percent": "the share of all exits",
    },
)
VIEWS = (STAT, PORTS, ADDRESSES, INSTRUCTIONS)


@dataclass(frozen=True, slots=True)
class View:
    """A table under a schema.

    `about` says what a reader must know besides; `left` exits are in no row, since the
    counters had no room for their place or `top` cut the rows off.
    """

    schema: Schema
    rows: list[tuple[Any, ...]]
    about: dict[str, Any]
    left: int = 0

    def to_json(self) -> dict[str, Any]:
        """Schema, what `about` has, and the rows as objects."""
        names = list(self.schema.columns)
        return {
            "schema": self.schema.name,
            **self.about,
            "left_out": self.left,
            "rows": [dict(zip(names, row, strict=True)) for row in self.rows],
        }

    def to_csv(self) -> str:
        """A line of column names, then a line for each row; the schema is the first column."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["schema", *self.schema.columns])
        for row in self.rows:
            writer.writerow([self.schema.name, *("" if cell is None else cell for cell in row)])
        return out.getvalue()


def stat(ledger: Ledger, times: ExitTimes | Model) -> View:
    """Exits by reason, with times measured in the run or by a cost model."""
    rows = _measured(ledger, times) if isinstance(times, ExitTimes) else _modelled(ledger, times)
    whole = sum(weight for weight, _ in rows.values())
    table = []
    for reason, counts in sorted(ledger.by_reason.items(), key=lambda item: -item[1].count):
        weight, cells = rows[reason]
        table.append(
            (
                reason.value,
                counts.count,
                _percent(counts.count, ledger.total),
                _percent(weight, whole),
                *cells,
            )
        )
    measured = isinstance(times, ExitTimes)
    return View(
        STAT,
        table,
        {
            "times": "measured" if measured else "model",
            "model": None if measured else times.name,  # type: ignore[union-attr]
            "source": _MEASURED if isinstance(times, ExitTimes) else times.source,
            "total_time": round(whole, 3),
        },
    )


_MEASURED = (
    "the host's clock from entering the core to leaving it, on this machine; compare only with "
    "others of the same run"
)
_Cells = tuple[float, tuple[Any, ...]]


def _measured(ledger: Ledger, times: ExitTimes) -> dict[Reason, _Cells]:
    rows: dict[Reason, _Cells] = {}
    for reason in ledger.by_reason:
        spread = times.of(reason)
        rows[reason] = (
            spread.total / 1000,
            (
                *(round(ns / 1000, 3) for ns in (spread.least, spread.most, spread.mean)),
                "us",
                round(spread.error_percent, 2),
            ),
        )
    return rows


def _modelled(ledger: Ledger, model: Model) -> dict[Reason, _Cells]:
    in_us = model.in_seconds(Range.exactly(1)) is not None
    rows: dict[Reason, _Cells] = {}
    cost = estimate(model, ledger.by_reason)
    for reason, counts in ledger.by_reason.items():
        ends = [
            model.cost(reason, weight)
            for weight, count in ((Weight.LIGHT, counts.light), (Weight.HEAVY, counts.heavy))
            if count
        ]
        total = cost.by_reason[reason]
        each = Range(
            min(end.low for end in ends),
            total.typical / counts.count,
            max(end.high for end in ends),
        )
        shown, whole = (_in_unit(model, amount, in_us=in_us) for amount in (each, total))
        rows[reason] = (
            whole.typical,
            (
                *(round(value, 3) for value in (shown.low, shown.high, shown.typical)),
                "us" if in_us else Unit.CYCLES.value,
                None,
            ),
        )
    return rows


def _in_unit(model: Model, amount: Range, *, in_us: bool) -> Range:
    seconds = model.in_seconds(amount) if in_us else None
    return amount if seconds is None else seconds.times(1e6)


def by_port(ledger: Ledger, top: int | None = None) -> View:
    """Exits by port, size and direction."""
    counts = Counter(
        {(row.port, row.size, row.direction): count for row, count in ledger.ports.items()}
    )
    return ranked(
        PORTS,
        [((f"{port:#06x}", size, way), count) for (port, size, way), count in counts.items()],
        ledger.by_reason.get(Reason.IO, ReasonCount()).count,
        ledger.total,
        top,
    )


def by_instruction(ledger: Ledger, symbols: SymbolMap, top: int | None = None) -> View:
    """Exits by the address of the instruction."""
    counts: Counter[int] = Counter()
    reasons: dict[int, Counter[str]] = {}
    for place in ledger.places:
        counts[place.eip] += place.count
        reasons.setdefault(place.eip, Counter())[place.reason.value] += place.count
    return ranked(
        INSTRUCTIONS,
        [
            (
                (
                    f"{eip:#010x}",
                    symbols.name(eip),
                    "+".join(name for name, _ in reasons[eip].most_common()),
                ),
                count,
            )
            for eip, count in counts.items()
        ],
        ledger.total,
        ledger.total,
        top,
    )


class FaultPages:
    """Counts exits by the guest page that was accessed; an `ExitSink`."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[Reason, str, int]] = Counter()

    def take(self, _cpu: int, exits: Sequence[ExitRecord]) -> None:
        """Add exits; those that access no memory have no page."""
        pages: Counter[tuple[int, int, int]] = Counter()
        for _, _, _, event, _, qualifier, _, address, _, _ in exits:
            if event in _FAULTS:
                pages[event, 0, address & _PAGE] += 1
            elif event == Event.MMIO:
                pages[event, 1, qualifier & _PAGE] += 1
        for (event, physical, page), count in pages.items():
            space = "physical" if physical else "virtual"
            self.counts[REASON_OF[Event(event)], space, page] += count


_FAULTS = frozenset({Event.PTE_WRITE, Event.SHADOW_FILL, Event.PAGE_FAULT, Event.BYPASSED_FAULT})


def by_address(ledger: Ledger, pages: FaultPages, top: int | None = None) -> View:
    """Exits by the guest page that was accessed."""
    return ranked(
        ADDRESSES,
        [
            ((reason.value, space, f"{page:#010x}"), count)
            for (reason, space, page), count in pages.counts.items()
        ],
        pages.counts.total(),
        ledger.total,
        top,
    )


def ranked(
    schema: Schema,
    rows: list[tuple[tuple[Any, ...], int]],
    expected: int,
    total: int,
    top: int | None,
) -> View:
    """A view with the most frequent rows first; of equal ones in the order of their cells.

    `expected` exits would be in it if every place were known, `total` are all of the run.
    """
    rows.sort(key=lambda row: (-row[1], tuple(str(cell) for cell in row[0])))
    kept = rows if top is None else rows[:top]
    return View(
        schema,
        [(*cells, count, _percent(count, total)) for cells, count in kept],
        {},
        expected - sum(count for _, count in kept),
    )


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
