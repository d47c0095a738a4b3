"""The report as one HTML file: nothing in it comes from a network, and no script runs."""

from collections.abc import Callable, Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from bench.costs import Model
from bench.curve import queue_curves
from bench.record import Row
from bench.report.costs import costs_figure
from bench.report.curves import queue_figure
from bench.report.data import one_build, trios
from bench.report.exits import breakdown_figure, policies_figure, savings_figure
from bench.report.figure import Figure
from bench.report.provenance import machines_table, runs_table
from bench.report.style import to_svg
from bench.report.suites import extra_figures
from bench.report.timeline import timeline_figure
from vmm.core.errors import BadDescription

__all__ = ["build_page", "figures_of"]


def figures_of(
    rows: Sequence[Row],
    models: Sequence[Model] | None = None,
    tell: Callable[[str], None] = lambda _what: None,
) -> list[Figure]:
    """All figures that the rows of a result file have data for, in their order.

    `models` are the cost models, all that come along by default; `tell` hears what is
    being drawn. Raises `BadDescription` when there is nothing to show.
    """
    counted, _ = one_build(rows)
    figures: list[Figure | None] = []
    batching = [row for row in counted if row.case.suite == "batching"]
    groups = trios(batching)
    if groups:
        tell("exits saved")
        figures += [savings_figure(groups), breakdown_figure(groups)]
        curves = queue_curves(batching)
        if curves:
            tell("queue sizes")
            figures.append(queue_figure(curves))
        figures += [policies_figure(groups), costs_figure(groups, models)]
        tell("timeline")
        figures.append(timeline_figure(groups))
    tell("other suites")
    figures += extra_figures(counted, models)
    found = [figure for figure in figures if figure is not None]
    if not found:
        raise BadDescription(
            "no counted runs to report: expected a result file of vmirom bench batching -o FILE"
        )
    return found


def build_page(
    rows: Sequence[Row],
    figures: Sequence[Figure],
    title: str,
) -> str:
    """The page: the figures, then every run. `title` is text, usually the file's name."""
    _, others = one_build(rows)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        files("bench.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    )
    drawn = [
        (
            figure,
            None
            if figure.drawing is None
            else to_svg(figure.drawing, figure.slug, figure.title, figure.description),
        )
        for figure in figures
    ]
    return template.render(
        title=title,
        figures=drawn,
        runs=runs_table(rows),
        machines=machines_table(rows),
        others=others,
    )
