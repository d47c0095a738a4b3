"""`vmirom bench slots`: lookups of guest memory, by the number of memory slots."""

from dataclasses import asdict

import click

from bench.slots import SLOT_COUNTS, measure_slots
from vmirom.options import as_json
from vmirom.output import number, plain_table, print_json, progress, stdout
from vmm.core import is_compiled

__all__ = ["slots"]

_QUICK = 0.1


@click.command(
    epilog="Examples: vmirom bench slots; vmirom bench slots --count 5000 --count 20000 --json"
)
@click.option(
    "--count",
    "counts",
    type=click.IntRange(1, 100_000),
    multiple=True,
    help=f"Slots in the list; may be repeated.  [default: {', '.join(map(str, SLOT_COUNTS))}]",
)
@click.option("--quick", is_flag=True, help="A tenth of the lookups.")
@as_json
def slots(counts: tuple[int, ...], quick: bool, *, json_output: bool) -> None:  # noqa: FBT001 - click's
    """Lookups of a guest's page frame a second, in lists of one to 10,000 slots.

    What the core knows of a frame - memory, nothing, or a device - it finds in a table; a frame
    that it meets for the first time by bisection of the slots. The last columns are the same
    search in Python, by bisection and of the whole list, and how often a second the list can be
    replaced. Times are this host's, so only the ratios say something.
    """
    with progress() as tell:
        rows = measure_slots(counts or SLOT_COUNTS, scale=_QUICK if quick else 1.0, progress=tell)
    core = "compiled" if is_compiled() else "interpreted"
    if json_output:
        print_json(
            {
                "schema": "vmirom.bench.slots/1",
                "core": core,
                "rows": [{name: round(rate) for name, rate in asdict(row).items()} for row in rows],
            }
        )
        return
    stdout.print(f"million lookups a second, core {core}; lists put in place", markup=False)
    table = plain_table(
        "slots", "memory", "nothing", "device", "first", "bisect", "linear", "lists/s"
    )
    for row in rows:
        count, *rates, changes = asdict(row).values()
        table.add_row(
            number(count), *(f"{rate / 1e6:,.4g}" for rate in rates), number(round(changes))
        )
    stdout.print(table)
