"""How results look: tables on the terminal, numbers with thousands marks, progress on stderr."""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.status import Status
    from rich.table import Table

    from vmm.result import SoFar

__all__ = [
    "INTERRUPTED",
    "Progress",
    "SweepProgress",
    "number",
    "percent",
    "plain_table",
    "print_json",
    "progress",
    "stderr",
    "stdout",
    "sweep_progress",
]

INTERRUPTED = 130
"""The exit status that a shell expects of a program that Ctrl-C stopped."""

_LOOK_SECONDS = 0.5
"""Between two changes of the status line."""


class _Later:
    """A console made when it is first used: a run whose result is JSON loads no Rich."""

    def __init__(self, *, to_stderr: bool) -> None:
        self._to_stderr = to_stderr
        self._console: Console | None = None

    def _made(self) -> "Console":
        if self._console is None:
            from rich.console import Console  # noqa: PLC0415

            self._console = Console(stderr=self._to_stderr, highlight=False, soft_wrap=True)
        return self._console

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made(), name)

    # Python looks these up in the class: Rich's live displays enter their console.

    def __enter__(self) -> "Console":
        return self._made().__enter__()

    def __exit__(self, *error: object) -> None:
        self._made().__exit__(*cast("tuple[Any, Any, Any]", error))


stdout = cast("Console", _Later(to_stderr=False))
stderr = cast("Console", _Later(to_stderr=True))


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


def plain_table(*headers: str) -> "Table":
    """A table whose first column is text and whose others are numbers."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE, pad_edge=False)
    for i, header in enumerate(headers):
        table.add_column(header, justify="left" if i == 0 else "right")
    return table


class Running(Protocol):
    """What can be asked of a machine while it runs."""

    def so_far(self) -> "SoFar":
        """How far it is."""
        ...


class Progress:
    """Tells what is going on, where somebody may be looking, and ends runs on Ctrl-C.

    `clock` tells the host's time in seconds.
    """

    def __init__(
        self, status: "Status | None", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._status = status
        self._clock = clock
        self._text = ""
        self._machine: Running | None = None
        self._looked = 0.0
        self._exits = 0
        self._interrupted = False

    def __call__(self, text: str) -> None:
        """What is being done now."""
        self._text = text
        self._machine = None
        if self._status is not None:
            self._status.update(text)

    def follow(self, machine: Running) -> None:
        """The machine whose run is to be watched."""
        self._machine = machine
        self._looked = self._clock()
        self._exits = 0

    def watch(self, instructions: int) -> None:
        """How far the guest is; raises KeyboardInterrupt after Ctrl-C.

        Once in a while this shows instructions, virtual time, and exits a second of late.
        """
        if self._interrupted:
            raise KeyboardInterrupt
        if self._status is None:
            return
        if self._machine is None:
            if instructions:
                self._status.update(f"{self._text}: {number(instructions)} instructions")
            return
        now = self._clock()
        if now - self._looked < _LOOK_SECONDS:
            return
        so_far = self._machine.so_far()
        parts = [f"{so_far.virtual_ns / 1e9:.2f} virtual s"]
        if so_far.instructions:
            parts.insert(0, f"{number(so_far.instructions)} instructions")
        rate = round((so_far.exits - self._exits) / (now - self._looked))
        parts.append(f"{number(so_far.exits)} exits, {number(rate)}/s")
        self._looked, self._exits = now, so_far.exits
        self._status.update(f"{self._text}: {', '.join(parts)}")

    def line(self, text: str) -> None:
        """Print a line on stdout, out of the status line's way."""
        if self._status is None:
            click.echo(text)
            return
        self._status.stop()
        click.echo(text)
        self._status.start()

    def quiet(self) -> None:
        """Leave the terminal to somebody else."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def interrupt(self, *_: object) -> None:
        """Take Ctrl-C. The second one is not waited with."""
        self._interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def progress() -> Iterator[Progress]:
    """A status line on stderr while work goes on; silent when stderr is no terminal.

    Ctrl-C meanwhile waits for the next `watch`: an exception that a signal handler
    raises while the engine calls back would be lost.
    """
    if sys.stderr.isatty() and stderr.is_terminal:
        with stderr.status("starting") as status, _interruptible(Progress(status)) as tell:
            yield tell
    else:
        with _interruptible(Progress(None)) as tell:
            yield tell


@contextmanager
def _interruptible(tell: Progress) -> Iterator[Progress]:
    before = signal.signal(signal.SIGINT, tell.interrupt)
    try:
        yield tell
    finally:
        signal.signal(signal.SIGINT, before)


class SweepProgress:
    """A bar for a sweep: what is done of how much, and what was done last."""

    def __init__(self, bar: "Bar | None", tell: Progress) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task("starting", total=None)
        self.watch = tell.watch

    def __call__(self, done: int, total: int, label: str) -> None:
        """Show it."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, description=label)


@contextmanager
def sweep_progress(*, here: bool) -> Iterator[SweepProgress]:
    """A bar on stderr; silent when stderr is no terminal.

    `here` says that runs go on in this process: then Ctrl-C waits for the next `watch`, as
    with `progress`. Otherwise it raises KeyboardInterrupt at once.
    """
    with contextlib.ExitStack() as stack:
        bar = None
        if sys.stderr.isatty() and stderr.is_terminal:
            from rich.progress import (  # noqa: PLC0415
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar  # noqa: PLC0415

            bar = stack.enter_context(
                Bar(
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeRemainingColumn(),
                    TextColumn("{task.description}", markup=False),
                    console=stderr,
                    transient=True,
                )
            )
        tell = Progress(None)
        if here:
            stack.enter_context(_interruptible(tell))
        yield SweepProgress(bar, tell)
