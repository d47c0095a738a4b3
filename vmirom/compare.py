"""`vmirom compare`: the main result - exits with each ROM, and what was saved."""

import sys
from pathlib import Path

import click

from bench.compare import Comparison, NamedRun, compare, queue_cost
from bench.costs import Model
from bench.engines import engine_differences, explain
from bench.inputs import load_guest
from bench.remaining import remaining
from bench.schema import compare_to_json
from bench.symbols import read_system_map
from vmirom.estimates import costs_options, print_estimates
from vmirom.observe import print_remaining
from vmirom.options import RomTuning, as_json, machine_options, rom_options
from vmirom.output import (
    INTERRUPTED,
    number,
    percent,
    plain_table,
    print_json,
    progress,
    stderr,
    stdout,
)
from vmm.core.event import Reason
from vmm.core.outcome import OutcomeKind
from vmm.engines import EngineName, engine_named
from vmm.machine import MachineDescription

__all__ = ["compare_command"]


@click.command(
    "compare",
    epilog="Examples: vmirom compare forkstorm; vmirom compare pagefault --policy vtx-shadow "
    "--json; vmirom compare forkstorm --roms none,batching --queue 16 --append rounds=200; "
    "vmirom compare forkstorm --costs nehalem --costs cascadelake; "
    "vmirom compare ideread --reflect --append ports=2",
)
@click.argument("guest")
@click.option(
    "--roms",
    default="none,identity,batching",
    show_default=True,
    metavar="LIST",
    help="ROMs, separated by commas; the first is the baseline.",
)
@click.option(
    "--engines",
    "engine_names",
    default=EngineName.UNICORN.value,
    show_default=True,
    metavar="LIST",
    help="Engines, separated by commas; savings are against the first ROM on the same engine.",
)
@rom_options
@machine_options
@costs_options
@click.option("--calls", "show_calls", is_flag=True, help="With --json: list the ROM's calls.")
@click.option(
    "--remaining",
    "show_remaining",
    is_flag=True,
    help="The exits that remain with the last ROM, by class and place, and why they are forced.",
)
@click.option(
    "--symbols",
    "system_map",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Names for --remaining: the kernel's System.map.",
)
@as_json
def compare_command(
    guest: str,
    roms: str,
    engine_names: str,
    tuning: RomTuning,
    about: MachineDescription,
    models: tuple[Model, ...],
    system_map: Path | None,
    *,
    show_calls: bool,
    show_remaining: bool,
    json_output: bool,
) -> None:
    """Run GUEST with several ROMs and show the exits that each saved."""
    chosen = load_guest(guest)
    symbols = chosen.symbols if system_map is None else read_system_map(system_map)
    choices = [tuning.load(name) for name in roms.split(",")]
    engines = [engine_named(name) for name in engine_names.split(",")]
    with progress() as tell:
        result = compare(
            chosen,
            choices,
            about,
            lambda rom: tell(f"{chosen.name}, ROM {rom}"),
            tell.watch,
            engines,
            tell.follow,
        )
    last = result.runs[-1]
    if json_output:
        value = compare_to_json(result, calls=show_calls, models=models)
        if show_remaining:
            value["remaining"] = remaining(last.run, symbols).to_json()
        print_json(value)
    else:
        print_comparison(result)
        if show_remaining:
            stdout.print(f"What remains with ROM {last.rom.name}, and why:", markup=False)
            print_remaining(remaining(last.run, symbols))
        print_estimates(result, models)
    if any(named.run.outcome.kind is OutcomeKind.INTERRUPTED for named in result.runs):
        sys.exit(INTERRUPTED)
    for named in result.runs:
        if not named.run.outcome.ok:
            stderr.print(
                f"vmirom: {chosen.name} with ROM {named.rom.name}: {named.run.outcome}",
                markup=False,
            )
    if not result.ok:
        sys.exit(1)


def print_comparison(result: Comparison) -> None:
    """The table, then the result in words."""
    several = len(result.engines) > 1
    engines = " and ".join(result.engines)
    stdout.print(
        f"{result.guest}, policy {result.policy.name}, engine{'s' * several} {engines}",
        markup=False,
    )
    titles = [
        f"{run.run.engine} {run.rom.name}" if several else run.rom.name for run in result.runs
    ]
    table = plain_table("exits by reason", *titles)
    for reason in result.reasons:
        table.add_row(reason.value, *(_cell(named, reason) for named in result.runs))
    table.add_section()
    table.add_row("total", *(number(named.run.ledger.total) for named in result.runs))
    table.add_row("saved", *(_saved_cell(result, named) for named in result.runs))
    stdout.print(table)
    for named in result.runs:
        if not _is_baseline(result, named):
            stdout.print(in_words(result, named), markup=False)
    for difference in engine_differences(result):
        stdout.print(
            f"ROM {difference.rom}, engine {difference.first} against {difference.second}:",
            markup=False,
        )
        for line in explain(difference):
            stdout.print(f"  {line}", markup=False)


def _is_baseline(result: Comparison, named: NamedRun) -> bool:
    return result.baseline_of(named) is named.run


def _saved_cell(result: Comparison, named: NamedRun) -> str:
    if _is_baseline(result, named):
        return ""
    saving = result.saving(named)
    return f"{number(saving.saved)} ({percent(saving.percent)})"


def _cell(named: NamedRun, reason: Reason) -> str:
    row = named.run.ledger.by_reason.get(reason)
    return number(row.count) if row else "0"


def in_words(result: Comparison, named: NamedRun) -> str:
    """What a run saved against the baseline, in a sentence or three."""
    saving = result.saving(named)
    base = result.runs[0].rom.name
    subject = f"ROM {named.rom.name}"
    if len(result.engines) > 1:
        subject = f"Engine {named.run.engine}: {subject}"
    if saving.saved > 0:
        text = (
            f"{subject} saved {number(saving.saved)} of {number(saving.before)} exits "
            f"({percent(saving.percent)}) against {base}"
        )
        stores = result.saving(named, Reason.PTE_WRITE)
        if stores.saved > 0:
            text += (
                f", {number(stores.saved)} of {number(stores.before)} page-table writes "
                f"({percent(stores.percent)}) among them"
            )
        text += "."
    elif saving.saved == 0:
        text = f"{subject} saved nothing against {base} and added nothing."
    else:
        text = f"{subject} saved nothing against {base} and added {number(-saving.saved)} exits."
    if saving.saved <= 0 and not named.run.policy.shadow:
        text += (
            " With hardware-assisted paging page tables cost no exits, so batching their updates"
            " has nothing to save."
        )
    paravirt = named.run.paravirt
    cost = queue_cost(named.run)
    if cost is not None:
        text += (
            f"\n  {number(paravirt.updates)} page-table updates went through the queue in "
            f"{number(paravirt.flushes)} batch{'' if paravirt.flushes == 1 else 'es'}, "
            f"{paravirt.largest_batch} records at most, "
            f"at {cost:.1f} ROM instructions each."
        )
    return text
