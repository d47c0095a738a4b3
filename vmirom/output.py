"""How results look: tables on the terminal, numbers with thousands marks, progress on stderr."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table

__all__ = ["number", "percent", "plain_table", "print_json", "progress", "stderr", "stdout"]

stdout = Console(highlight=False, soft_wrap=True)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON object on stdout, and nothing else."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def number(value: int) -> str:
    """1,234,567."""
    return f"{value:,}"


def percent(value: float) -> str:
    """A percentage that never rounds up to all: 99.996 is "99.99 %", not "100 %"."""
    if value in {0.0, 100.0}:
        return f"{value:.0f} %"
    shown = int(value * 100) / 100 if abs(value) > 99 else round(value, 1)
    return f"{shown} %"


def plain_table(*headers: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for i, header in enumerate(headers):
        table.add_column(header, justify="left" if i == 0 else "right")
    return table


class _Progress:
    """Tells what is going on, where somebody may be looking."""

    def __init__(self, status: Status | None) -> None:
        self._status = status

    def __call__(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)


@contextmanager
def progress() -> Iterator[_Progress]:
    """A status line on stderr while work goes on; silent when stderr is no terminal."""
    if not stderr.is_terminal:
        yield _Progress(None)
        return
    with stderr.status("starting") as status:
        yield _Progress(status)
