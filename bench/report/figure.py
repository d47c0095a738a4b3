"""A figure and all that must go with it: words, and the numbers as a table."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure as Drawing

__all__ = ["Figure", "Table"]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headers; the first column names the row, the others are numbers."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, caption: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> "Table":
        """A table of texts and numbers; numbers get thousands marks."""
        return cls(caption, tuple(headers), tuple(tuple(map(_text, row)) for row in rows))


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True, slots=True)
class Figure:
    """One section of the report.

    `slug` names its files, `text` says what the data show, paragraph by paragraph,
    `description` tells someone who cannot see the drawing what is in it.
    """

    slug: str
    title: str
    text: tuple[str, ...]
    description: str
    drawing: Drawing | None
    tables: tuple[Table, ...] = field(default=())
