"""How figures look: colours that everybody can tell apart, on paper and on a dark screen.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), without the
yellow, which paper swallows; bars have hatches and lines have markers besides. Text and
axes take the page's own colour (`currentColor`), so that one drawing serves both themes.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter

__all__ = ["COLOURS", "HATCHES", "MARKERS", "draw", "plain_axes", "to_png", "to_svg"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F", "#8C564B")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo", "----")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_INK = "#010203"
"""Stands for the page's text colour until the drawing is on the page."""
_FAINT = "#010204"
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "grid.color": _FAINT,
    "grid.alpha": 0.3,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.fonttype": "none",
}
_DPI = 200


@contextmanager
def draw(width: float = 7.2, height: float = 3.6) -> Iterator[Drawing]:
    """An empty drawing in inches, in the house style."""
    with mpl.rc_context(_STYLE):
        yield Drawing(figsize=(width, height), layout="constrained")


def plain_axes(axes: Axes, *, grid: str = "y") -> Axes:
    """Faint grid lines behind the data and thousands marks, along one axis."""
    axes.grid(axis="x" if grid == "x" else "y")
    scale = axes.xaxis if grid == "x" else axes.yaxis
    scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_axisbelow(True)
    return axes


def to_svg(drawing: Drawing, slug: str, title: str, description: str) -> str:
    """The drawing as an SVG element that follows the theme and says what it shows.

    The same drawing gives the same text, and no two slugs share an id.
    """
    out = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": slug}):
        drawing.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(_INK, "currentColor").replace(_FAINT, "currentColor")
    # Matplotlib's own ids (figure_1, axes_1 ...) repeat in every drawing.
    text = re.sub(r'\bid="([^"]+)"', rf'id="{slug}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{slug}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{slug}-\1)", text)
    head, body = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return (
        f'{head} role="img" aria-labelledby="{slug}-title {slug}-desc" class="figure">'
        f'<title id="{slug}-title">{escape(title)}</title>'
        f'<desc id="{slug}-desc">{escape(description)}</desc>{body}'
    )


def to_png(drawing: Drawing) -> bytes:
    """The drawing for where no theme is: dark on white."""
    out = io.BytesIO()
    with mpl.rc_context(_STYLE):
        drawing.savefig(out, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return out.getvalue()
