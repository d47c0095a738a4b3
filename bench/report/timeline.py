"""A run over its time: exits by reason, without a ROM and with."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from bench.inputs import load_guest, load_rom, machine_with
from bench.record import Counts
from bench.report.data import Trio
from bench.report.figure import Figure, Table
from bench.report.style import COLOURS, draw, plain_axes
from rombuilder.guest import guest_names
from vmm.core.event import REASON_OF, Event
from vmm.core.policy import policy_named
from vmm.machine import Machine, MachineDescription
from vmm.recording import ExitRecord

__all__ = ["Timeline", "timeline_figure"]

_BINS = 120
_FIRST_WIDTH = 1000
"""Nanoseconds of virtual time in a bin, to begin with; doubled whenever the bins are full."""


class Timeline:
    """Counts exits by reason in bins of virtual time; never more than `bins` of them.

    An `ExitSink`. `width` is in nanoseconds; `counts` holds a counter of reasons a bin.
    """

    def __init__(self, bins: int = _BINS) -> None:
        self.width = _FIRST_WIDTH
        self.counts: list[Counter[str]] = []
        self._bins = bins

    def take(self, _cpu: int, exits: Sequence[ExitRecord]) -> None:
        """Some thousand exits, in their order."""
        for row in exits:
            place = row[0] // self.width
            while place >= self._bins:
                self.halve()
                place = row[0] // self.width
            while len(self.counts) <= place:
                self.counts.append(Counter())
            self.counts[place][REASON_OF[Event(row[3])].value] += 1

    def halve(self) -> None:
        """Make the bins twice as wide, and half as many."""
        self.width *= 2
        pairs = zip(self.counts[::2], [*self.counts[1::2], Counter()], strict=False)
        self.counts = [first + second for first, second in pairs]


def timeline_figure(trios: Sequence[Trio]) -> Figure | None:
    """The guest that batching helps most, run again without a ROM and with it.

    Only guests that come along can be run again; their counts repeat, and a run whose
    counts are not those of the result file (another version's) is not shown.
    """
    known = [trio for trio in trios if trio.batching is not None and trio.guest in guest_names()]
    if not known:
        return None
    best = max(known, key=lambda trio: trio.percent(trio.batching) or 0.0)
    lines = []
    for rom, counts in (("none", best.none), ("batching", best.batching)):
        line = None if counts is None else _again(best, rom, counts)
        if line is None:
            return None
        lines.append(("no ROM" if rom == "none" else rom, line))
    width = max(line.width for _, line in lines)
    for _, line in lines:
        while line.width < width:
            line.halve()
    totals: Counter[str] = sum((sum(line.counts, Counter()) for _, line in lines), Counter())
    reasons = [reason for reason, _ in totals.most_common(5)]
    with draw(height=4.6) as drawing:
        # One scale for both, or the saving would not be seen.
        panels = drawing.subplots(2, 1, squeeze=False, sharex=True, sharey=True).flat
        for axes, (name, line) in zip(panels, lines, strict=True):
            plain_axes(axes)
            times = [i * line.width / 1e6 for i in range(len(line.counts))]
            stacks = [[one[reason] for one in line.counts] for reason in reasons]
            others = [sum(one.values()) - sum(one[r] for r in reasons) for one in line.counts]
            axes.stackplot(
                times,
                *stacks,
                others,
                labels=[*reasons, "others"],
                colors=COLOURS[: len(reasons)] + COLOURS[6:7],
                step="post",
            )
            axes.set_title(f"{best.name}, {name}", loc="left")
            axes.set_ylabel(f"exits per {width / 1e3:g} us")
        axes.set_xlabel("virtual time, ms")
        drawing.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return Figure(
        "timeline",
        "A run over its time",
        (
            (
                f"{best.name} under {best.policy}, in virtual time: one nanosecond an instruction, "
                "and a charge for slow operations. Run again for this figure, with the counts of "
                "result file."
            ),
        ),
        "Two stacked areas: exits by reason over virtual time, without a ROM and with batching.",
        drawing,
        (
            Table.of(
                f"Exits of {best.name} over its time, in tenths of the longer run",
                ("from, ms", *(f"{name}, exits" for name, _ in lines)),
                _tenths([line for _, line in lines]),
            ),
        ),
    )


def _again(trio: Trio, rom: str, counts: Counts) -> Timeline | None:
    guest = load_guest(trio.guest)
    image = load_rom(rom) if trio.queue is None else load_rom(rom, trio.queue)
    line = Timeline()
    machine = Machine(
        replace(
            machine_with(MachineDescription(guest=guest.image), guest, image),
            policy=policy_named(trio.policy),
            command_line=trio.command_line,
        )
    )
    machine.record(line)
    run = machine.run()
    same = run.instructions == counts.instructions and run.ledger.total == counts.exits
    return line if same else None


def _tenths(lines: Sequence[Timeline]) -> list[tuple[object, ...]]:
    end = max(len(line.counts) * line.width for line in lines)
    rows = []
    for tenth in range(10):
        start, stop = end * tenth // 10, end * (tenth + 1) // 10
        rows.append(
            (
                f"{start / 1e6:.2f}",
                *(
                    sum(
                        sum(one.values())
                        for i, one in enumerate(line.counts)
                        if start <= i * line.width < stop
                    )
                    for line in lines
                ),
            )
        )
    return rows
