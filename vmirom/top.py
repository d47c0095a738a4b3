"""`vmirom top`: a guest's exits while it runs, in the shape of kvm_stat."""

import os
import select
import sys
import time
from typing import Any

import click
from rich.live import Live
from rich.table import Table

from bench.inputs import load_guest, machine_with
from bench.live import TOP_SCHEMA, LiveRow, Pulse
from vmirom.options import RomTuning, as_json, machine_options, rom_option, rom_options
from vmirom.output import (
    INTERRUPTED,
    Progress,
    number,
    plain_table,
    print_json,
    progress,
    stderr,
    stdout,
)
from vmirom.terminal import single_keys
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription, Run

__all__ = ["top"]

_QUIT = b"qQ"


@click.command(
    epilog="Examples: vmirom top forkstorm --append rounds=5000 --rom batching; "
    "vmirom top forkstorm --append rounds=5000 --interval 0.5"
)
@click.argument("guest")
@rom_option
@rom_options
@machine_options
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@as_json
def top(
    guest: str,
    rom_name: str,
    tuning: RomTuning,
    about: MachineDescription,
    interval: float,
    *,
    json_output: bool,
) -> None:
    """Run GUEST and show its exits live: in all, their share, and each second.

    On a terminal the table is drawn anew at each interval, and q ends the run; elsewhere
    each interval prints a line. The totals come last, also after q or Ctrl-C. With
    --json only they are printed.
    """
    chosen = load_guest(guest)
    rom = tuning.load(rom_name)
    title = f"{chosen.name}, ROM {rom.name}, policy {about.policy.name}"
    with progress() as tell:
        watcher = _Watcher(
            Machine(machine_with(about, chosen, rom)), tell, title, interval, quiet=json_output
        )
        tell.quiet()
        run = watcher.run()
    if json_output:
        print_json(watcher.to_json(run))
    else:
        stdout.print(
            f"{title}: {run.outcome}, {run.virtual_ns / 1e9:.6f} virtual seconds", markup=False
        )
        stdout.print(watcher.table(watcher.totals(run), "Avg/s"))
    if run.outcome.kind is OutcomeKind.INTERRUPTED:
        sys.exit(0 if watcher.quitting else INTERRUPTED)
    if not run.outcome.ok:
        stderr.print(f"vmirom: {chosen.name}: {run.outcome}", markup=False)
        sys.exit(1)


class _Watcher:
    """Looks at one machine at intervals."""

    def __init__(
        self, machine: Machine, tell: Progress, title: str, interval: float, *, quiet: bool
    ) -> None:
        self.quitting = False
        self._machine = machine
        self._tell = tell
        self._title = title
        self._interval = interval
        self._quiet = quiet
        self._start = self._seen = self._end = time.monotonic()
        self._pulse = Pulse(self._start)
        self._live: Live | None = None

    def run(self) -> Run:
        """Run the guest to its end, or until somebody has seen enough."""
        with single_keys() as keys:
            if stdout.is_terminal and not self._quiet:
                with Live(console=stdout, auto_refresh=False, transient=True) as self._live:
                    run = self._machine.run(lambda n: self._look(n, keys=keys))
            else:
                run = self._machine.run(lambda n: self._look(n, keys=keys))
        self._end = time.monotonic()
        return run

    def _look(self, instructions: int, *, keys: bool) -> None:
        self._tell.watch(instructions)
        if keys and _pressed():
            self.quitting = True
            raise KeyboardInterrupt
        now = time.monotonic()
        if now - self._seen < self._interval or self._quiet:
            return
        self._seen = now
        rows = self._pulse.rows(self._machine.ledger(), now)
        if self._live is not None:
            self._live.update(self.table(rows, "CurAvg/s"), refresh=True)
        else:
            self._print_line(rows, now)

    def _print_line(self, rows: list[LiveRow], now: float) -> None:
        busy = ", ".join(
            f"{row.event} {number(round(row.per_second))}" for row in rows if row.per_second
        )
        total = sum(row.total for row in rows)
        rate = sum(row.per_second for row in rows)
        click.echo(
            f"{now - self._start:8.1f} s  {number(total)} exits, {number(round(rate))}/s"
            f"{f': {busy}' if busy else ''}"
        )

    def totals(self, run: Run) -> list[LiveRow]:
        """The whole run."""
        return self._pulse.totals(run.ledger, self._end)

    def table(self, rows: list[LiveRow], rate: str) -> Table:
        """As kvm_stat draws it."""
        table = plain_table("Event", "Total", "%Total", rate)
        if self._live is not None and self._live.is_started:
            table.title = self._title
            table.title_justify = "left"
        for row in rows:
            table.add_row(
                row.event, number(row.total), f"{row.percent:.1f}", number(round(row.per_second))
            )
        table.add_section()
        table.add_row(
            "Total",
            number(sum(row.total for row in rows)),
            "",
            number(round(sum(row.per_second for row in rows))),
        )
        return table

    def to_json(self, run: Run) -> dict[str, Any]:
        """The totals."""
        return {
            "schema": TOP_SCHEMA,
            "title": self._title,
            "outcome": run.outcome.kind.value,
            "seconds": self._end - self._start,
            "virtual_seconds": run.virtual_ns / 1e9,
            "rows": [
                {
                    "event": row.event,
                    "total": row.total,
                    "percent": round(row.percent, 2),
                    "per_second": row.per_second,
                }
                for row in self.totals(run)
            ],
        }


def _pressed() -> bool:
    """Has somebody asked to quit?"""
    if not select.select([sys.stdin], [], [], 0)[0]:
        return False
    return any(key in _QUIT for key in os.read(sys.stdin.fileno(), 64))
