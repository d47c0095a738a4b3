"""The queue-size curve: where batching stops paying."""

from collections.abc import Sequence

from matplotlib.ticker import FuncFormatter

from bench.curve import QueueCurve
from bench.report.figure import Figure, Table
from bench.report.style import COLOURS, MARKERS, draw, plain_axes
from vmm.core.policy import POLICIES

__all__ = ["queue_figure"]

_SHARE = 0.01


def queue_figure(curves: Sequence[QueueCurve]) -> Figure:
    """Exits against capacity, a panel for each guest, with the limit as a line.

    The drawing is for the first policy that there is, the table for all.
    """
    there = {curve.policy for curve in curves}
    policy = next((p.name for p in POLICIES if p.name in there), curves[0].policy)
    shown = [curve for curve in curves if curve.policy == policy]
    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    with draw(height=0.6 + 2.4 * lines) as drawing:
        panels = drawing.subplots(lines, columns, squeeze=False).flat
        for axes, curve, colour, marker in zip(
            panels, shown, COLOURS * 8, MARKERS * 8, strict=False
        ):
            plain_axes(axes)
            sizes = [size for size, _ in curve.points]
            axes.plot(sizes, [c.exits for _, c in curve.points], color=colour, marker=marker)
            if curve.none is not None:
                axes.axhline(curve.none, color="#7F7F7F", linewidth=1)
                axes.annotate(
                    "no ROM", (sizes[0], curve.none), xytext=(0, -10), textcoords="offset points",
                    fontsize=8,
                )  # fmt: skip
            if curve.limit is not None:
                axes.axhline(curve.limit, color="#7F7F7F", linewidth=1, linestyle="--")
                axes.annotate(
                    "limit", (sizes[0], curve.limit), xytext=(0, 3), textcoords="offset points",
                    fontsize=8,
                )  # fmt: skip
            enough = curve.enough(_SHARE)
            if enough is not None and len(sizes) > 1:
                axes.axvline(enough, color="#7F7F7F", linewidth=1, linestyle=":")
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            most = max([curve.none or 0, *(counts.exits for _, counts in curve.points)])
            axes.set_ylim(0, most * 1.08)
            axes.set_title(f"{curve.guest} {curve.command_line}".strip())
            axes.set_xlabel("capacity, records")
            axes.set_ylabel("exits")
        for axes in list(panels):
            axes.set_visible(False)
    return Figure(
        "queue",
        "How large a queue",
        queue_text(shown),
        f"Lines: exits against the queue's capacity under {shown[0].policy}, with the exits "
        "without a ROM and the least that any capacity reaches as horizontal lines, and the "
        "capacity that is within one percent of it as a dotted line.",
        drawing,
        (
            Table.of(
                "Exits by capacity of the queue",
                ("guest", "policy", "capacity", "exits", "forced", "queue full", "largest batch"),
                [
                    (
                        f"{curve.guest} {curve.command_line}".strip(),
                        curve.policy,
                        size,
                        counts.exits,
                        "-" if counts.forced is None else counts.forced,
                        "-" if counts.queue_full is None else counts.queue_full,
                        counts.largest_batch,
                    )
                    for curve in curves
                    for size, counts in curve.points
                ],
            ),
        ),
    )


def queue_text(curves: Sequence[QueueCurve]) -> tuple[str, ...]:
    """Where batching stops paying, said from the data."""
    text = [
        (
            "Each point where the interface demands that a change is visible forces one exit, "
            "whatever the queue holds; that is the limit. A full queue costs one more."
        )
    ]
    ends = []
    for curve in curves:
        name = f"{curve.guest} {curve.command_line}".strip()
        largest = curve.points[-1]
        enough = curve.enough(_SHARE)
        if enough is None:
            ends.append(
                f"In {name} even {largest[0]:,} records fill up "
                f"({largest[1].queue_full or 0:,} times); the limit was not reached."
            )
            continue
        if curve.none is not None and curve.limit is not None and curve.limit >= curve.none:
            ends.append(f"In {name} batching saves nothing, whatever the capacity.")
            continue
        spared = curve.points[0][1].exits - (curve.limit or 0)
        if spared <= 0:
            ends.append(f"In {name} the capacity makes no difference.")
            continue
        sentence = (
            f"In {name} batching stops paying at {enough:,} record{'s' if enough != 1 else ''}: "
            f"a larger queue saves less than one percent more than {curve.limit:,} exits at best."
        )
        half = next(
            size
            for size, counts in curve.points
            if curve.points[0][1].exits - counts.exits >= spared / 2
        )
        if half < enough:
            sentence += f" Half of what the queue saves is there with {half:,}."
        ends.append(sentence)
    return (*text, *ends)
