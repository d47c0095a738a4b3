"""`vmirom bench batching`, `paging`, `io`, `linux`: suites that keep what they count."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from bench import suites
from bench.costs import Model, Unit
from bench.curve import QueueCurve, queue_curves
from bench.inputs import load_guest, load_initrd, load_rom
from bench.intervals import mean_interval, ratio_interval, require_scipy
from bench.iocost import io_costs
from bench.record import Row
from bench.tcg import QEMU, QEMU_ENGINE, require_qemu
from rombuilder.rom import Visibility
from vmirom.estimates import costs_options
from vmirom.output import number, percent, plain_table, stdout
from vmirom.sweeps import Sweep, perform, policies_option, quick_option, sweep_options
from vmm.core.errors import BadDescription
from vmm.core.event import Reason
from vmm.core.ledger import ReasonCount
from vmm.description import DEFAULT_MEMORY

__all__ = ["batching", "io", "linux", "paging"]

_PAGING = (
    Reason.PTE_WRITE,
    Reason.SHADOW_FILL,
    Reason.PAGE_FAULT,
    Reason.INVLPG,
    Reason.CR_WRITE,
    Reason.HYPERCALL,
)
"""Reasons that page-table work exits for."""


guests_option = click.option(
    "--guest",
    "guests",
    multiple=True,
    metavar="NAME",
    help="A guest in place of the suite's own; may be repeated.",
)


@click.command(
    epilog="Examples: vmirom bench batching --quick -o results.db; "
    "vmirom bench batching --guest forkstorm --policy svm-shadow --visibility strict"
)
@guests_option
@policies_option
@click.option(
    "--visibility",
    "visibilities",
    multiple=True,
    type=click.Choice([visibility.value for visibility in Visibility]),
    default=[Visibility.TLB.value],
    show_default=True,
    help="When the ROM tells of changes; may be repeated.",
)
@quick_option
@sweep_options(repetitions=1)
def batching(
    how: Sweep,
    guests: tuple[str, ...],
    policies: tuple[str, ...],
    visibilities: tuple[str, ...],
    *,
    quick: bool,
) -> None:
    """Exits against the queue's capacity: 1 to 1024 records x guests x policies."""
    points = suites.batching(guests, policies, visibilities, quick=quick)
    perform("batching", points, how, _print_curves)


def _print_curves(rows: list[Row]) -> None:
    table = plain_table("guest", "policy", "queue", "exits", "saved", "forced", "queue full")
    table.columns[1].justify = "left"
    curves = queue_curves(rows)
    for curve in curves:
        for name, exits in (("no ROM", curve.none), ("identity", curve.identity)):
            if exits is not None:
                table.add_row(
                    curve.guest, curve.policy, name, number(exits), _saved(curve, exits), "", ""
                )
        for queue, counts in curve.points:
            table.add_row(
                curve.guest,
                curve.policy if curve.visibility == "tlb" else f"{curve.policy}, strict",
                number(queue),
                number(counts.exits),
                _saved(curve, counts.exits),
                _number(counts.forced),
                _number(counts.queue_full),
            )
        table.add_section()
    stdout.print(table)
    for curve in curves:
        stdout.print(_in_words(curve), markup=False)


def _saved(curve: QueueCurve, exits: int) -> str:
    if curve.none is None or exits == curve.none:
        return ""
    return percent(100 * (curve.none - exits) / curve.none)


def _number(value: int | None) -> str:
    return "?" if value is None else number(value)


def _in_words(curve: QueueCurve) -> str:
    """Where the curve ends, and from which queue on it is flat."""
    name = f"{curve.guest}, {curve.policy}"
    if curve.visibility != Visibility.TLB:
        name += f", {curve.visibility}"
    enough = curve.enough()
    if curve.limit is None or enough is None:
        return f"{name}: the largest queue still fills up, so its limit is not known."
    return (
        f"{name}: at best {number(curve.limit)} exits; a queue of {number(enough)} is within 1 % "
        "of that."
    )


@click.command(epilog="Example: vmirom bench paging --quick --policy svm-unsync --json")
@guests_option
@policies_option
@quick_option
@sweep_options(repetitions=1)
def paging(how: Sweep, guests: tuple[str, ...], policies: tuple[str, ...], *, quick: bool) -> None:
    """What page-table work costs: pages at a time x guests x policies x ROMs."""
    perform("paging", suites.paging(guests, policies, quick=quick), how, _print_paging)


def _print_paging(rows: list[Row]) -> None:
    table = plain_table("guest", "pages", "policy", "ROM", "exits", "for paging", "pte_write")
    table.columns[2].justify = table.columns[3].justify = "left"
    for row in _first(rows):
        case, counts = row.case, row.counts
        if counts is None:
            continue
        by_reason = {r: counts.by_reason.get(r, ReasonCount()).count for r in Reason}
        table.add_row(
            case.guest,
            f"{row.measures.get('pages', 0):.0f}",
            case.policy,
            case.rom if case.visibility in {None, Visibility.TLB} else f"{case.rom}, strict",
            number(counts.exits),
            number(sum(by_reason[reason] for reason in _PAGING)),
            number(by_reason[Reason.PTE_WRITE]),
        )
    stdout.print(table)


@click.command(
    epilog="Examples: vmirom bench io --quick -o results.db; vmirom bench io --costs nehalem"
)
@policies_option
@quick_option
@costs_options
@sweep_options(repetitions=1)
def io(how: Sweep, policies: tuple[str, ...], models: tuple[Model, ...], *, quick: bool) -> None:
    """Exits of a device operation: 4 KiB from a disk, a byte to the console, a time read.

    On a plain machine; with port filters, which make exits light; with exits reflected into
    the batching ROM, and instructions patched where they leave room; and with that ROM
    called. --costs adds what the exits of one operation cost.
    """
    perform("io", suites.io(policies, quick=quick), how, lambda rows: _print_io(rows, models))


def _print_io(rows: list[Row], models: Sequence[Model]) -> None:
    costs = io_costs(rows)
    for policy in dict.fromkeys(cost.policy for cost in costs):
        stdout.print(f"policy {policy}: exits of one operation", markup=False)
        table = plain_table(
            "operation",
            "served by",
            "exits",
            "heavy",
            "instructions",
            *(f"{'cycles' if m.unit is Unit.CYCLES else 'ns'}, {m.name}" for m in models),
        )
        table.columns[1].justify = "left"
        for unit, name in suites.IO_UNITS.items():
            table.add_section()
            group = [cost for cost in costs if (cost.unit, cost.policy) == (unit, policy)]
            for cost in group:
                table.add_row(
                    name if cost is group[0] else "",
                    cost.served_by,
                    f"{cost.exits:,.4g}",
                    f"{cost.heavy:,.4g}",
                    f"{cost.instructions:,.0f}",
                    *(f"{cost.cost(model).typical:,.0f}" for model in models),
                )
        stdout.print(table)
    for model in models:
        stdout.print(
            f"{model.name}: estimated, not measured, exits alone: {model.source}", markup=False
        )


def _first(rows: Iterable[Row]) -> list[Row]:
    """One row a case: counts are the same in all."""
    return list({row.case: row for row in rows}.values())


@click.command(
    epilog="Examples: vmirom bench linux bzImage --initrd init.cpio.gz "
    "--append 'console=ttyS0 panic=1' -o results.db; "
    "vmirom bench linux --repetitions 5"
)
@click.argument(
    "kernel", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--initrd",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The initial RAM disk; its init ends with a reboot.  [default: $VMI_INITRD]",
)
@click.option("--append", default="console=ttyS0 panic=1", show_default=True, metavar="TEXT")
@sweep_options(repetitions=3, jobs=1)
def linux(how: Sweep, kernel: Path | None, initrd: Path | None, append: str) -> None:
    """CPU time of a Linux boot, as a ratio to QEMU's TCG, and its exits.

    KERNEL is a bzImage; $VMI_KERNEL where it is not given. Of vmirom the run alone is
    timed, of QEMU the whole process, which cannot be told apart; `vmirom bench speed`
    compares whole processes.
    """
    chosen = _named(kernel, "VMI_KERNEL", "KERNEL")
    ramdisk = load_initrd(_named(initrd, "VMI_INITRD", "--initrd"))
    assert ramdisk is not None  # noqa: S101 - there is a path
    require_qemu()
    if how.repetitions > 1:
        require_scipy()
    roms = [load_rom("none"), load_rom("identity"), load_rom("batching")]
    points = suites.linux(load_guest(str(chosen)), ramdisk, append, roms, DEFAULT_MEMORY)
    perform("linux", points, how, _print_boots)


def _named(path: Path | None, variable: str, option: str) -> Path:
    """What was given, or what the environment names."""
    if path is not None:
        return path
    name = os.environ.get(variable)
    if not name:
        raise BadDescription(f"no {option}, and {variable} is not set: expected one of them")
    return Path(name)


def _print_boots(rows: list[Row]) -> None:
    seconds: dict[str, list[float]] = {}
    exits: dict[str, int | None] = {}
    for row in sorted(rows, key=lambda row: row.repetition):
        name = QEMU if row.case.engine == QEMU_ENGINE else f"ROM {row.case.rom}"
        seconds.setdefault(name, []).append(row.cpu_seconds)
        exits[name] = None if row.counts is None else row.counts.exits
    table = plain_table("boot", "CPU seconds", "ratio", "exits")
    reference = seconds.get(QEMU, [])
    for name, values in seconds.items():
        count = exits[name]
        table.add_row(
            name,
            str(mean_interval(values)),
            _ratio(name, values, reference),
            "" if count is None else number(count),
        )
    stdout.print(table)
    stdout.print(
        "mean, and where the true one lies with 95 % confidence; of vmirom the run alone, of "
        "QEMU the whole process",
        markup=False,
    )


def _ratio(name: str, values: list[float], reference: list[float]) -> str:
    """Of CPU time to QEMU's; unknown where a sweep was stopped between the two."""
    if name == QEMU:
        return "1"
    return str(ratio_interval(values, reference)) if len(reference) == len(values) else "?"
