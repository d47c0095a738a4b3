"""`vmirom report`: a result file as one HTML page, and its figures as pictures."""

from pathlib import Path

import click

from bench.costs import models_for
from bench.store import Results
from vmirom.output import number, progress, stdout
from vmm.core.errors import BadDescription

__all__ = ["report"]


@click.command(
    epilog="Examples: vmirom report results.db -o report.html; "
    "vmirom report results.db --svg figures --costs nehalem"
)
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The page.  [default: report.html, unless pictures were asked for]",
)
@click.option(
    "--svg", type=click.Path(path_type=Path), metavar="FOLDER", help="Each figure as SVG there."
)
@click.option(
    "--png", type=click.Path(path_type=Path), metavar="FOLDER", help="Each figure as PNG there."
)
@click.option(
    "--costs",
    "cost_names",
    multiple=True,
    metavar="NAME|FILE.toml",
    help="Value saved exits by these models only; see `vmirom costs`. May be repeated.",
)
@click.option("--title", metavar="TEXT", help="The page's title.  [default: the file's name]")
def report(
    results: Path,
    output: Path | None,
    svg: Path | None,
    png: Path | None,
    cost_names: tuple[str, ...],
    title: str | None,
) -> None:
    """Make a page of the runs in RESULTS, a file of `vmirom bench SUITE -o`.

    One file, readable on a phone and on paper: what each ROM saved, of which reasons,
    how large a queue pays, on which processors, and every run with where it comes from.
    """
    try:
        from bench.report import build_page, figures_of  # noqa: PLC0415 - an extra
        from bench.report.style import to_png, to_svg  # noqa: PLC0415
    except ImportError as error:
        raise BadDescription(f"a report needs {error.name}: pip install 'vmirom[report]'") from None
    with Results(results, create=False) as file:
        rows = file.rows()
    models = [model for name in cost_names for model in models_for(name)] or None
    if output is None and svg is None and png is None:
        output = Path("report.html")
    with progress() as tell:
        figures = figures_of(rows, models, tell)
        for folder, suffix in ((svg, "svg"), (png, "png")):
            if folder is None:
                continue
            for figure in figures:
                if figure.drawing is None:
                    continue
                tell(f"{figure.slug}.{suffix}")
                if suffix == "svg":
                    text = to_svg(figure.drawing, figure.slug, figure.title, figure.description)
                    _write(folder / f"{figure.slug}.svg", _standing_alone(text).encode())
                else:
                    _write(folder / f"{figure.slug}.png", to_png(figure.drawing))
        if output is not None:
            tell("page")
            page = build_page(rows, figures, title or results.name)
            _write(output, page.encode())
    if output is not None:
        stdout.print(
            f"{output}: {number(len(figures))} figures, {number(len(rows))} runs", markup=False
        )


def _standing_alone(svg: str) -> str:
    """An SVG file has no page whose colour it could take: dark on white."""
    return svg.replace("<svg", '<svg style="color:#1a1a1a;background:#ffffff"', 1)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise BadDescription(f"{str(path)!r}: {error.strerror or error}") from None
