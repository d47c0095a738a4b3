"""`vmirom bench speed`: how fast guests run and exits are served, against QEMU's TCG."""

import os
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bench.bare import Bareness, compare_with_bare
from bench.endurance import endure, steadiness
from bench.exitcosts import PERCENTILES, Costs, Growth, exit_costs, growth
from bench.shares import PARTS, shares
from bench.tcg import QEMU
from bench.yardstick import WORKS, Pace, interval, measure_boot, measure_pace
from vmirom.options import as_json
from vmirom.output import number, plain_table, print_json, progress, stdout
from vmm.core import is_compiled
from vmm.core.policy import POLICIES, policy_named
from vmm.engines import EngineName, report_engines
from vmm.machine import MachineDescription

__all__ = ["speed"]

_KERNEL, _INITRD, _APPEND = "VMI_KERNEL", "VMI_INITRD", "VMI_APPEND"
_QUICK = 0.1


@click.command(
    epilog="Examples: vmirom bench speed; vmirom bench speed --quick --json; "
    "vmirom bench speed --growth 10000000; vmirom bench speed --long 1000000"
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
@click.option(
    "--long",
    "enduring",
    type=click.IntRange(min=1000),
    help="Nothing but this: so many exits, ten times and a hundred times as many, with the "
    "process's memory sampled. 1000000 takes some minutes.",
)
@click.option("--policy", default=POLICIES[0].name, show_default=True)
@as_json
def speed(
    quick: bool,  # noqa: FBT001 - click's
    repetitions: int,
    growing: int,
    enduring: int | None,
    policy: str,
    *,
    json_output: bool,
) -> None:
    """Instructions and exits a second, by turns with QEMU's TCG, and what an exit costs.

    Times are this host's, so only the ratios say something. With VMI_KERNEL and VMI_INITRD
    in the environment, a Linux boot too: whole processes, start-up and all.
    """
    about = MachineDescription(guest=b"", policy=policy_named(policy))
    if enduring is not None:
        _endure(about, enduring, json_output=json_output)
        return
    scale, times = (_QUICK, 1) if quick else (1.0, repetitions)
    with progress() as tell:
        kvm = next(report for report in report_engines() if report.name is EngineName.KVM)
        able = {ability.name for ability in kvm.abilities if ability.available}
        paces = measure_pace(WORKS, about, times, scale=scale, kvm=able, progress=tell)
        kernel, initrd = os.environ.get(_KERNEL), os.environ.get(_INITRD)
        if kernel and initrd:
            paces += [
                measure_boot(
                    *(Path(kernel), Path(initrd), rom, about, times, tell),
                    append=os.environ.get(_APPEND, ""),
                )
                for rom in ("none", "batching")
            ]
        bare = compare_with_bare(about, times, scale=scale, progress=tell)
        costs = exit_costs(about, scale=scale, progress=tell)
        grown = growth(about, growing // 10 if quick else growing, progress=tell)
        where = {work.name: None if quick else shares(work, about) for work in WORKS}
    if json_output:
        print_json(_to_json(policy, times, paces, bare, costs, grown, where))
        return
    for line in _timed(policy, times, kvm.refusal, able):
        stdout.print(line, markup=False)
    _print_paces(paces, where)
    _print_costs(bare, costs, grown)


def _core() -> str:
    return "compiled" if is_compiled() else "interpreted"


def _timed(policy: str, times: int, refusal: str, able: Collection[str]) -> list[str]:
    """What the numbers below are times of."""
    lacking = sorted({work.needs for work in WORKS} - set(able))
    lines = [
        (
            f"Timed: CPU seconds, user and system, of engine unicorn with the {_core()} core, no "
            f"ROM, policy {policy}; of {QEMU} -accel tcg, the whole process. Of either a short run "
            f"is subtracted, which takes start-up away. Median of {times} (least to most)."
        ),
        "Linux, where asked for: whole processes, start-up and all, with the ROM named.",
    ]
    if refusal:
        lines.append(f"No KVM here: {refusal}")
    elif lacking:
        lines.append(
            "KVM: CPU seconds of this process in the same way, where it can run the guest; here "
            f"it lacks {', '.join(lacking)}."
        )
    return lines


def _endure(about: MachineDescription, exits: int, *, json_output: bool) -> None:
    with progress() as tell:
        stretches = endure(about, exits, progress=tell, watch=tell.watch)
    ratios = steadiness(stretches)
    if json_output:
        print_json(
            {
                "schema": "vmirom.bench.speed.long/1",
                "policy": about.policy.name,
                "core": _core(),
                "stretches": [asdict(stretch) for stretch in stretches],
                "cost_to_stretch_before": ratios,
            }
        )
        return
    stdout.print(
        f"CPU seconds, user and system, without start-up; engine unicorn, {_core()} core, no ROM, "
        f"policy {about.policy.name}. Memory of the process: medians of the second tenth of a run "
        "and of its last.",
        markup=False,
    )
    table = plain_table("work", "exits", "CPU seconds", "us each", "KiB early", "KiB late")
    for stretch in stretches:
        table.add_row(
            stretch.work,
            number(stretch.exits),
            f"{stretch.seconds:.2f}",
            f"{stretch.each:.3f}",
            number(stretch.early),
            number(stretch.late),
        )
    stdout.print(table)
    stdout.print(
        "an exit to one in the run before: " + ", ".join(f"{ratio:.2f}" for ratio in ratios),
        markup=False,
    )


def _spread(values: list[float]) -> str:
    spread = interval(values)
    if spread is None:
        return "too short"
    middle, least, most = spread
    return f"{middle:.2f} ({least:.2f} to {most:.2f})"


def _print_paces(paces: list[Pace], where: dict[str, dict[str, float] | None]) -> None:
    table = plain_table("work", "CPU time to QEMU TCG", "to KVM", "M instr/s", "exits/s")
    for pace in paces:
        table.add_row(
            pace.work,
            _spread(pace.ratios),
            _spread(pace.kvm_ratios) if pace.kvm else "",
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
        "core": _core(),
        "repetitions": repetitions,
        "rows": [
            {
                "name": pace.work,
                "ratio": None if (spread := interval(pace.ratios)) is None else spread[0],
                "ratios": pace.ratios,
                "to_kvm": pace.kvm_ratios,
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
