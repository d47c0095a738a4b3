"""`vmirom bench irq`: exits of an interrupt, by its way to the processor."""

import click

from bench.irq import measure_irq
from vmirom.options import as_json
from vmirom.output import number, plain_table, print_json, progress, stdout
from vmm.core.policy import POLICIES, policy_named

__all__ = ["irq"]


@click.command(epilog="Examples: vmirom bench irq; vmirom bench irq --interrupts 5000 --json")
@click.option(
    "--interrupts",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    metavar="N",
    help="How many to take by each route.",
)
@click.option("--policy", default=POLICIES[0].name, show_default=True)
@as_json
def irq(interrupts: int, policy: str, *, json_output: bool) -> None:
    """Exits of one interrupt: PIC, I/O APIC, MSI, and with the ROM's APIC calls."""
    chosen = policy_named(policy)
    with progress() as tell:
        rows = measure_irq(interrupts, chosen, tell)
    if json_output:
        print_json(
            {
                "schema": "vmirom.bench.irq/1",
                "policy": chosen.name,
                "interrupts": interrupts,
                "rows": [
                    {
                        "route": row.route.value,
                        "rom_calls": row.rom_calls,
                        "exits_each": row.exits,
                        "light_each": row.light,
                        "heavy_each": row.heavy,
                        "by_reason_each": row.by_reason,
                    }
                    for row in rows
                ],
            }
        )
        return
    stdout.print(
        f"policy {chosen.name}: exits per interrupt, over {number(interrupts)} that each "
        "interrupt a running guest",
        markup=False,
    )
    table = plain_table("route", "ended by", "exits", "light", "heavy", "reasons")
    table.columns[1].justify = table.columns[5].justify = "left"
    for row in rows:
        ended = "port" if row.route.value == "PIC" else "ROM call" if row.rom_calls else "register"
        reasons = ", ".join(f"{name} {each:.2f}" for name, each in sorted(row.by_reason.items()))
        table.add_row(
            row.route.value,
            ended,
            f"{row.exits:.2f}",
            f"{row.light:.2f}",
            f"{row.heavy:.2f}",
            reasons,
        )
    stdout.print(table)
