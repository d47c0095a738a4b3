"""What the saved exits cost, processor by processor; sources are never mixed."""

from collections.abc import Sequence
from itertools import groupby

from bench.costs import Model, Unit, estimate_saved, load_models
from bench.report.data import Trio
from bench.report.figure import Figure, Table
from bench.report.style import COLOURS, draw, plain_axes

__all__ = ["costs_figure"]


def costs_figure(trios: Sequence[Trio], models: Sequence[Model] | None = None) -> Figure | None:
    """Cycles or time saved by batching in the guest that saves most, one panel a source."""
    policy = trios[0].policy
    shown = [t for t in trios if t.policy == policy and t.batching is not None]
    if not shown:
        return None
    best = max(shown, key=lambda trio: trio.percent(trio.batching) or 0.0)
    if best.batching is None or (best.saved(best.batching) or 0) <= 0:
        return None
    known = load_models() if models is None else models
    panels = [
        (source, list(group))
        for source, group in groupby(known, key=lambda model: (model.source, model.unit))
    ]
    rows = []
    with draw(height=0.6 + sum(0.7 + 0.3 * len(group) for _, group in panels)) as drawing:
        grid = drawing.subplots(
            len(panels),
            1,
            squeeze=False,
            height_ratios=[0.7 + 0.3 * len(group) for _, group in panels],
        ).flat
        for axes, ((source, unit), group), colour in zip(grid, panels, COLOURS, strict=False):
            plain_axes(axes, grid="x")
            scale, label = (1e6, "million cycles") if unit is Unit.CYCLES else (1e-3, "ms")
            for i, model in enumerate(group):
                saved = estimate_saved(model, best.none.by_reason, best.batching.by_reason)
                span = saved.cycles if unit is Unit.CYCLES else saved.seconds
                if span is None:
                    continue
                low, typical, high = (x / scale for x in (span.low, span.typical, span.high))
                axes.errorbar(
                    typical,
                    i,
                    xerr=[[max(0.0, typical - low)], [max(0.0, high - typical)]],
                    fmt="o",
                    capsize=3,
                    color=colour,
                )
                rows.append((model.name, _short(source), f"{low:,.2f}", f"{typical:,.2f}",
                             f"{high:,.2f}", label))  # fmt: skip
            axes.set_yticks(range(len(group)), [model.name for model in group])
            axes.set_ylim(len(group) - 0.5, -0.5)
            axes.margins(x=0.08)
            axes.set_xlim(left=0)
            axes.set_title(_short(source), loc="left", fontsize=8)
            axes.set_xlabel(f"{label} saved")
    saved_exits = best.saved(best.batching) or 0
    return Figure(
        "costs",
        "What that was worth, by processor",
        (
            (
                f"The {saved_exits:,} exits that batching saves in {best.name} under {policy}, "
                "valued at what an exit costs on each processor. The whiskers are the range that "
                "the source allows; figures of different sources include different things and must "
                "not be compared with each other."
            ),
        ),
        "Dots with whiskers, one panel for each source: what the saved exits would have cost.",
        drawing,
        (
            Table.of(
                f"Saved in {best.name} by cost model",
                ("model", "source", "low", "typical", "high", "unit"),
                rows,
            ),
        ),
    )


def _short(source: str) -> str:
    return source if len(source) <= 90 else source[:87].rstrip(" ,;(") + "..."
