"""`vmirom bench`: the suites, and how fast exits are served."""

import click

from bench.inputs import load_guest, load_rom
from bench.kvm_speed import measure_kvm
from bench.speed import SpeedRow, measure_speed
from rombuilder.guest import guest_names
from vmirom.history import diff, history
from vmirom.irq import irq
from vmirom.options import as_json
from vmirom.output import number, plain_table, print_json, progress, stdout
from vmirom.slots import slots
from vmirom.speed import speed
from vmirom.suites import batching, io, linux, paging
from vmm.core import is_compiled
from vmm.core.policy import POLICIES, policy_named
from vmm.machine import MachineDescription

__all__ = ["bench"]

_LONGER = {"forkstorm": "rounds=400", "ctxswitch": "rounds=2000"}
"""Command lines that make a run last a good part of a second."""


@click.group(
    invoke_without_command=True,
    epilog="Examples: vmirom bench; vmirom bench exits --repetitions 5 --json; "
    "vmirom bench batching --quick -o results.db",
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


for command in (batching, paging, io, irq, slots, linux, speed, history, diff):
    bench.add_command(command)


@bench.command("kvm", epilog="Example: vmirom bench kvm --exits 100000 --json")
@click.option("--exits", "count", type=click.IntRange(min=1), default=50_000, show_default=True)
@click.option("--repetitions", type=click.IntRange(min=1), default=5, show_default=True)
@as_json
def kvm(count: int, repetitions: int, *, json_output: bool) -> None:
    """Port exits a second on engine kvm, as a ratio to a minimal loop in C in the same run."""
    with progress() as tell:
        speed = measure_kvm(count, repetitions, tell)
    rows = {"C loop": speed.c_loop, "engine kvm": speed.engine}
    if json_output:
        print_json(
            {
                "schema": "vmirom.bench.kvm/1",
                "exits": speed.exits,
                "nanoseconds": {"c_loop": list(speed.c_loop), "engine": list(speed.engine)},
                "ratio": speed.ratio,
            }
        )
        return
    table = plain_table("port exits by", "per second", "microseconds each")
    for name, times in rows.items():
        rate = speed.rate(speed.exits, times)
        table.add_row(name, number(round(rate)), f"{1e6 / rate:.2f}")
    stdout.print(table)
    stdout.print(
        f"The engine takes {speed.ratio:.2f} times as long as the loop, by the medians of "
        f"{repetitions} interleaved runs of {number(count)} exits.",
        markup=False,
    )
