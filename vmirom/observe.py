"""What `vmirom run` shows of a run besides its counts: times, places, a trace."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bench.costs import Model
from bench.exittimes import ExitTimes
from bench.remaining import REMAINING, remaining
from bench.symbols import SymbolMap
from bench.trace import DEFAULT_LIMIT, TraceWriter
from bench.views import STAT, FaultPages, View, by_address, by_instruction, by_port, stat
from vmirom.gather import gather
from vmirom.options import Size
from vmirom.output import number, plain_table, stdout
from vmm.core.errors import BadDescription
from vmm.machine import Machine, Run
from vmm.recording import ExitSink

if TYPE_CHECKING:
    from vmm.kvm_machine import KvmMachine

__all__ = ["Asked", "Observation", "observe_options", "observing", "print_remaining"]

F = TypeVar("F", bound=Callable[..., Any])

_TOP = 20
"""Rows of a view on the terminal, unless told otherwise."""
_BY = ("port", "address", "instruction", "class")


def observe_options(function: F) -> F:
    """Views of the ledger, and traces: the argument `asked`."""
    return gather(
        "asked",
        Asked,
        click.option(
            "--trace-limit",
            type=Size(),
            default=f"{DEFAULT_LIMIT >> 20}M",
            show_default=True,
            help="Leave out what does not fit into so much of a trace (text, uncompressed).",
        ),
        click.option(
            "--trace",
            "trace_file",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Write trace events for Perfetto or Chrome, or JSON lines if FILE ends in .jsonl; "
            "compressed if it ends in .gz.",
        ),
        click.option("--csv", is_flag=True, help="Print the one view asked for as CSV."),
        click.option(
            "--top",
            type=click.IntRange(min=1),
            metavar="N",
            help="With --by: the N most frequent only.  [default: 20 on the terminal]",
        ),
        click.option(
            "--by",
            multiple=True,
            type=click.Choice(_BY),
            help="Exits by port, guest page, instruction, or class, the latter with why they are "
            "forced; may be repeated.",
        ),
        click.option(
            "--stat",
            is_flag=True,
            help="Exits with times, as perf kvm stat has them: measured, or by a model (--costs).",
        ),
    )(function)


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `observe_options`."""

    stat: bool
    by: tuple[str, ...]
    top: int | None
    csv: bool
    trace_file: Path | None
    trace_limit: int

    def check(self, models: Sequence[Model], *, as_json: bool) -> None:
        """Raise `BadDescription` for options that contradict each other."""
        if models and not self.stat:
            raise BadDescription("--costs: means nothing to run without --stat")
        if self.top is not None and not self.by:
            raise BadDescription(f"--top {self.top}: means nothing without --by")
        views = len(set(self.by)) + (max(1, len(models)) if self.stat else 0)
        if self.csv and (views != 1 or as_json):
            raise BadDescription(
                f"--csv: expected one view and no --json, got {views} "
                f"view{'' if views == 1 else 's'}{' and --json' if as_json else ''}"
            )


@dataclass(slots=True)
class Observation:
    """What was seen of one run."""

    asked: Asked
    models: Sequence[Model]
    symbols: SymbolMap
    times: ExitTimes = field(default_factory=ExitTimes)
    pages: FaultPages = field(default_factory=FaultPages)
    trace: TraceWriter | None = None

    def views(self, run: Run, top: int | None) -> list[View]:
        """The views asked for, in the order of the options."""
        found = []
        if self.asked.stat:
            sources: Sequence[ExitTimes | Model] = self.models or (self.times,)
            found += [stat(run.ledger, source) for source in sources]
        for name in dict.fromkeys(self.asked.by):
            if name == "port":
                found.append(by_port(run.ledger, top))
            elif name == "address":
                found.append(by_address(run.ledger, self.pages, top))
            elif name == "instruction":
                found.append(by_instruction(run.ledger, self.symbols, top))
            else:
                found.append(remaining(run, self.symbols, top))
        return found

    def to_json(self, run: Run) -> dict[str, Any]:
        """Keys for `run --json`: `views` and `trace`, as far as asked for."""
        result: dict[str, Any] = {}
        views = self.views(run, self.asked.top)
        if views:
            result["views"] = [view.to_json() for view in views]
        if self.trace is not None:
            result["trace"] = {
                "file": str(self.trace.path),
                "exits": self.trace.written,
                "left_out": sum(self.trace.left_out.values()),
            }
        return result

    def show(self, title: str, run: Run) -> None:
        """The views as text, then a word on the trace."""
        for view in self.views(run, self.asked.top or _TOP):
            if view.schema is STAT:
                _print_stat(title, view)
            elif view.schema is REMAINING:
                print_remaining(view)
            else:
                _print_places(view)
        if self.trace is not None:
            left = sum(self.trace.left_out.values())
            stdout.print(
                f"trace: {self.trace.path}, {number(self.trace.written)} exits in virtual time"
                + (f"; {number(left)} left out (--trace-limit)" if left else ""),
                markup=False,
            )

    def print_csv(self, run: Run) -> None:
        """The one view asked for."""
        (view,) = self.views(run, self.asked.top)
        sys.stdout.write(view.to_csv())


@contextmanager
def observing(
    machine: "Machine | KvmMachine",
    asked: Asked,
    models: Sequence[Model],
    about: dict[str, Any],
    symbols: SymbolMap,
) -> Iterator[Observation]:
    """Record what was asked for, timed unless by `models`.

    `about` names guest, ROM and policy in the trace.

    Raises `BadDescription` for what engine kvm does not record.
    """
    seen = Observation(asked, models, symbols)
    sinks: list[ExitSink] = []
    measures = asked.stat and not models
    if measures:
        sinks.append(seen.times)
    if "address" in asked.by:
        sinks.append(seen.pages)
    if not isinstance(machine, Machine):
        if sinks or asked.trace_file is not None:
            machine.close()
            raise BadDescription(
                "engine kvm records no single exits: --trace, --by address and --stat without "
                "--costs need engine unicorn"
            )
        yield seen
        return
    if asked.trace_file is None:
        if sinks:
            machine.record(*sinks, timing=measures)
        yield seen
        return
    with TraceWriter(
        asked.trace_file, about, symbols, cpus=len(machine.vm.vcpus), limit=asked.trace_limit
    ) as seen.trace:
        machine.record(*sinks, seen.trace, timing=measures)
        yield seen


def _print_stat(title: str, view: View) -> None:
    """As `perf kvm stat report` prints it."""
    unit = view.rows[0][7] if view.rows else "us"
    end = "us" if unit == "us" else ""
    digits = 2 if unit == "us" else 0
    lines = [f"Analyze events for {title}, all VCPUs:", ""]
    lines.append(
        f"{'VM-EXIT':>20} {'Samples':>10} {'Samples%':>9} {'Time%':>9} {'Min Time':>13} "
        f"{'Max Time':>13} {'Avg time':>13}"
    )
    lines.append("")
    for name, count, share, part, low, high, mean, _, error in view.rows:
        shown = [f"{value:.{digits}f}{end}" for value in (low, high, mean)]
        lines.append(
            f"{name:>20} {count:>10} {share:>8.2f}% {part:>8.2f}% {shown[0]:>13} {shown[1]:>13} "
            f"{shown[2]:>13}" + ("" if error is None else f" ( +- {error:6.2f}% )")
        )
    total = sum(row[1] for row in view.rows)
    time = f"{view.about['total_time']:.{digits}f}{end or ' cycles'}"
    lines += ["", f"Total Samples:{total}, Total events handled time:{time}."]
    if view.about["times"] == "measured":
        lines.append(f"Times are measured: {view.about['source']}.")
    else:
        lines.append(
            f"Times are not measured but by the cost model {view.about['model']}, min and max its "
            f"range: {view.about['source']}."
        )
    for line in lines:
        stdout.print(line, markup=False)


def print_remaining(view: View) -> None:
    """Each class of exits with its places, and why it is there."""
    for reason, what, places, why, count, share in view.rows:
        title = f"{reason}: {what}" if what else reason
        stdout.print(f"{number(count):>11} {share:6.2f} %  {title}", markup=False)
        stdout.print(f"{'at':>22} {places}", markup=False)
        stdout.print(f"{'why':>22} {why}", markup=False)
    if view.left:
        stdout.print(f"{number(view.left):>11}           in none of these rows", markup=False)


def _print_places(view: View) -> None:
    table = plain_table(*view.schema.columns)
    for column in table.columns[:-2]:
        column.justify = "left"
    for *cells, count, share in view.rows:
        table.add_row(*(str(cell) for cell in cells), number(count), f"{share:.2f}")
    stdout.print(table)
    if view.left:
        stdout.print(f"  and {number(view.left)} exits that are in none of these rows")
