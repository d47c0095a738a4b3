"""`vmirom bench`: how fast exits are served, and what queue capacity is worth."""

import sys
from pathlib import Path

import click

from bench.inputs import load_guest, load_rom
from bench.linux import measure_linux
from bench.queue_sweep import QueuePoint, sweep_queue
from bench.speed import SpeedRow, measure_speed
from rombuilder.guest import guest_names
from vmirom.options import as_json
from vmirom.output import INTERRUPTED, number, plain_table, print_json, progress, stdout
from vmm.core import is_compiled
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import POLICIES, policy_named
from vmm.machine import MachineDescription

__all__ = ["bench"]

_LONGER = {"forkstorm": "rounds=400", "ctxswitch": "rounds=2000"}
"""Command lines that make a run last a good part of a second."""


@click.group(
    invoke_without_command=True,
    epilog="Examples: vmirom bench; vmirom bench exits --repetitions 5 --json; "
    "vmirom bench queue --guest forkstorm",
)
@click.pass_context
def bench(context: click.Context) -> None:
    """Measure. Without a suite: `exits`."""
    if context.invoked_subcommand is None:
        context.invoke(exits)


@bench.command(epilog="Example: vmirom bench exits --guest forkstorm --json")
@click.option(
    "--guest", "names", multiple=True, help="A built-in guest; may be repeated.  [default: all]"
)
@click.option("--repetitions", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--policy", default=POLICIES[0].name, show_default=True)
@as_json
def exits(names: tuple[str, ...], repetitions: int, policy: str, *, json_output: bool) -> None:
    """Exits per second by reason, and the queue's cost in ROM instructions."""
    guests = [(load_guest(name), _LONGER.get(name, "")) for name in names or guest_names()]
    roms = [load_rom("none"), load_rom("batching")]
    about = MachineDescription(guest=b"", policy=policy_named(policy))
    with progress() as tell:
        rows = measure_speed(guests, roms, about, repetitions, tell, tell.watch)
    core = "compiled" if is_compiled() else "interpreted"
    if json_output:
        print_json(
            {
                "schema": "vmirom.bench.exits/1",
                "policy": about.policy.name,
                "core": core,
                "rows": [_row_to_json(row) for row in rows],
            }
        )
        return
    stdout.print(
        f"policy {about.policy.name}, engine unicorn, core {core}, "
        f"median of {repetitions} interleaved runs",
        markup=False,
    )
    table = plain_table("guest", "ROM", "reason", "exits", "per second")
    table.columns[1].justify = table.columns[2].justify = "left"
    for row in rows:
        run = row.named.run
        for reason, count in sorted(run.ledger.by_reason.items(), key=lambda item: -item[1].count):
            table.add_row(
                row.guest,
                row.named.rom.name,
                reason.value,
                number(count.count),
                number(round(row.rate(count.count))),
            )
        total = run.ledger.total
        table.add_row(
            row.guest,
            row.named.rom.name,
            "total",
            number(total),
            number(round(row.rate(total))),
            end_section=True,
        )
    stdout.print(table)
    for row in rows:
        if row.queue_cost is not None:
            stdout.print(
                f"{row.guest}: {row.queue_cost:.1f} ROM instructions per queued update",
                markup=False,
            )


def _row_to_json(row: SpeedRow) -> dict[str, object]:
    run = row.named.run
    return {
        "guest": row.guest,
        "rom": row.named.rom.name,
        "seconds": list(row.seconds),
        "instructions_per_second": row.rate(run.instructions),
        "exits": run.ledger.total,
        "exits_per_second": row.rate(run.ledger.total),
        "by_reason": {
            reason.value: {"count": count.count, "per_second": row.rate(count.count)}
            for reason, count in run.ledger.by_reason.items()
        },
        "instructions_per_update": row.queue_cost,
    }


@bench.command(epilog="Example: vmirom bench queue --guest forkstorm --guest pagefault")
@click.option(
    "--guest", "names", multiple=True, help="A built-in guest; may be repeated.  [default: all]"
)
@click.option("--policy", default=POLICIES[0].name, show_default=True)
@as_json
def queue(names: tuple[str, ...], policy: str, *, json_output: bool) -> None:
    """Exits against the capacity of the batching ROM's queue."""
    guests = [load_guest(name) for name in names or guest_names()]
    about = MachineDescription(guest=b"", policy=policy_named(policy))
    with progress() as tell:
        points = sweep_queue(guests, about, tell, tell.watch)
    if json_output:
        print_json(
            {
                "schema": "vmirom.bench.queue/1",
                "policy": about.policy.name,
                "points": [_point_to_json(point) for point in points],
            }
        )
    else:
        _print_points(points)
    if any(point.run.outcome.kind is OutcomeKind.INTERRUPTED for point in points):
        sys.exit(INTERRUPTED)


def _print_points(points: list[QueuePoint]) -> None:
    table = plain_table("guest", "queue", "exits", "batches", "largest")
    for point in points:
        paravirt = point.run.paravirt
        table.add_row(
            point.guest,
            "no ROM" if point.capacity is None else number(point.capacity),
            number(point.run.ledger.total),
            number(paravirt.flushes),
            number(paravirt.largest_batch),
        )
    stdout.print(table)


def _point_to_json(point: QueuePoint) -> dict[str, object]:
    return {
        "guest": point.guest,
        "capacity": point.capacity,
        "outcome": point.run.outcome.kind.value,
        "exits": point.run.ledger.total,
        "batches": point.run.paravirt.flushes,
        "largest_batch": point.run.paravirt.largest_batch,
    }


@bench.command(
    epilog="Example: vmirom bench linux bzImage --initrd init.cpio.gz "
    "--append 'console=ttyS0 panic=1'"
)
@click.argument("kernel", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--initrd", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True
)
@click.option("--append", default="console=ttyS0 panic=1", show_default=True, metavar="TEXT")
@click.option("--repetitions", type=click.IntRange(min=1), default=3, show_default=True)
@as_json
def linux(kernel: Path, initrd: Path, append: str, repetitions: int, *, json_output: bool) -> None:
    """CPU time of a Linux boot, as a ratio to QEMU's TCG in the same run."""
    about = MachineDescription(guest=b"", command_line=append)
    roms = [load_rom("none"), load_rom("identity"), load_rom("batching")]
    with progress() as tell:
        rows = measure_linux(kernel, initrd, roms, about, repetitions, tell)
    reference = rows[0].median
    if json_output:
        print_json(
            {
                "schema": "vmirom.bench.linux/1",
                "rows": [
                    {
                        "name": row.name,
                        "cpu_seconds": list(row.seconds),
                        "ratio": row.median / reference,
                        "exits": row.exits,
                    }
                    for row in rows
                ],
            }
        )
        return
    table = plain_table("boot", "CPU seconds", "ratio", "spread", "exits")
    for row in rows:
        table.add_row(
            row.name if row.exits is None else f"ROM {row.name}",
            f"{row.median:.2f}",
            f"{row.median / reference:.2f}",
            f"{min(row.seconds):.2f}-{max(row.seconds):.2f}",
            "" if row.exits is None else number(row.exits),
        )
    stdout.print(table)
