"""`vmirom bench speed`: how fast guests run and exits are served, against QEMU's TCG."""

import os
from pathlib import Path
from typing import Any

import click

from bench.bare import Bareness, compare_with_bare
from bench.exitcosts import PERCENTILES, Costs, Growth, exit_costs, growth
from bench.shares import PARTS, shares
from bench.yardstick import WORKS, Pace, interval, measure_boot, measure_pace
from vmirom.options import as_json
from vmirom.output import number, plain_table, print_json, progress, stdout
from vmm.core import is_compiled
from vmm.core.policy import POLICIES, policy_named
from vmm.machine import MachineDescription

__all__ = ["speed"]

_KERNEL, _INITRD = "VMI_KERNEL", "VMI_INITRD"
_QUICK = 0.1


@click.command(
    epilog="Examples: vmirom bench speed; vmirom bench speed --quick --json; "
    "vmirom bench speed --growth 10000000"
)
@click.option("--quick", is_flag=True, help="A tenth of the rounds, and one repetition.")
@click.option("--repetitions", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--growth",
    "growing",
    type=click.IntRange(min=1000),
    default=100_000,
    show_default=True,
    help="Exits of the shorter of two runs; the longer has ten times as many.",
)
@click.option("--policy", default=POLICIES[0].name, show_default=True)
@as_json
def speed(quick: bool, repetitions: int, growing: int, policy: str, *, json_output: bool) -> None:  # noqa: FBT001 - click's
    """Instructions and exits a second, by turns with QEMU's TCG, and what an exit costs.

    Times are this host's, so only the ratios say something. With VMI_KERNEL and VMI_INITRD
    in the environment, a Linux boot too: whole processes, start-up and all.
    """
    about = MachineDescription(guest=b"", policy=policy_named(policy))
    scale, times = (_QUICK, 1) if quick else (1.0, repetitions)
    with progress() as tell:
        paces = measure_pace(WORKS, about, times, scale=scale, progress=tell)
        kernel, initrd = os.environ.get(_KERNEL), os.environ.get(_INITRD)
        if kernel and initrd:
            paces += [
                measure_boot(Path(kernel), Path(initrd), rom, about, times, tell)
                for rom in ("none", "batching")
            ]
        bare = compare_with_bare(about, times, scale=scale, progress=tell)
        costs = exit_costs(about, scale=scale, progress=tell)
        grown = growth(about, growing // 10 if quick else growing, progress=tell)
        where = {work.name: None if quick else shares(work, about) for work in WORKS}
    if json_output:
        print_json(_to_json(policy, times, paces, bare, costs, grown, where))
        return
    core = "compiled" if is_compiled() else "interpreted"
    stdout.print(f"policy {policy}, core {core}, median of {times} (least to most)", markup=False)
    _print_paces(paces, where)
    _print_costs(bare, costs, grown)


def _spread(values: list[float]) -> str:
    spread = interval(values)
    if spread is None:
        return "too short"
    middle, least, most = spread
    return f"{middle:.2f} ({least:.2f} to {most:.2f})"


def _print_paces(paces: list[Pace], where: dict[str, dict[str, float] | None]) -> None:
    table = plain_table("work", "CPU time to QEMU TCG", "M instr/s", "exits/s")
    for pace in paces:
        table.add_row(
            pace.work,
            _spread(pace.ratios),
            f"{pace.per_second / 1e6:.0f}",
            number(round(pace.exits_per_second)) if pace.exits else "",
        )
    stdout.print(table)
    if any(where.values()):
        table = plain_table("share of time in", *PARTS)
        for name, parts in where.items():
            if parts is not None:
                table.add_row(name, *(f"{100 * parts[part]:.0f} %" for part in PARTS))
        stdout.print(table)


def _print_costs(bare: list[Bareness], costs: list[Costs], grown: list[Growth]) -> None:
    table = plain_table("straight code", "to Unicorn without hooks")
    for row in bare:
        table.add_row(row.work, _spread(row.ratios))
    stdout.print(table)
    table = plain_table("one exit, ns", "weight", *(f"p{p}" for p in PERCENTILES), "with engine")
    for cost in costs:
        table.add_row(cost.name, cost.weight, *map(number, cost.core), number(round(cost.whole)))
    stdout.print(table)
    table = plain_table("exits", "CPU seconds", "us each", "peak memory, KiB more")
    for step in grown:
        each = 1e6 * step.seconds / step.exits
        table.add_row(number(step.exits), f"{step.seconds:.2f}", f"{each:.2f}", number(step.grown))
    stdout.print(table)


def _to_json(
    policy: str,
    repetitions: int,
    paces: list[Pace],
    bare: list[Bareness],
    costs: list[Costs],
    grown: list[Growth],
    where: dict[str, dict[str, float] | None],
) -> dict[str, Any]:
    return {
        "schema": "vmirom.bench.speed/1",
        "policy": policy,
        "core": "compiled" if is_compiled() else "interpreted",
        "repetitions": repetitions,
        "rows": [
            {
                "name": pace.work,
                "ratio": None if (spread := interval(pace.ratios)) is None else spread[0],
                "ratios": pace.ratios,
                "instructions_per_second": pace.per_second,
                "exits": pace.exits,
                "exits_per_second": pace.exits_per_second,
                "by_reason": pace.reasons,
                "shares": where.get(pace.work),
            }
            for pace in paces
        ],
        "bare": [{"name": row.work, "ratios": row.ratios} for row in bare],
        "exit_ns": [
            {
                "name": cost.name,
                "weight": cost.weight,
                "exits": cost.exits,
                "percentiles": dict(zip(map(str, PERCENTILES), cost.core, strict=True)),
                "whole": cost.whole,
            }
            for cost in costs
        ],
        "growth": [
            {"exits": step.exits, "cpu_seconds": step.seconds, "grown": step.grown}
            for step in grown
        ],
    }
