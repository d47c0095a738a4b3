"""`vmirom run`: one guest, one ROM, one ledger."""

import sys
from dataclasses import replace

import click

from bench.compare import NamedRun
from bench.inputs import load_guest, load_rom
from bench.schema import run_to_json
from rombuilder.rom import Visibility
from vmirom.options import as_json, description, machine_options, queue_option, visibility_option
from vmirom.output import (
    INTERRUPTED,
    number,
    plain_table,
    print_json,
    progress,
    stderr,
    stdout,
)
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, Run

__all__ = ["run"]


@click.command(
    epilog="Examples: vmirom run forkstorm --rom batching; "
    "vmirom run guest.bin --rom rom.bin --policy npt --json; "
    "vmirom run pagefault --rom batching --calls --places 10"
)
@click.argument("guest")
@click.option(
    "--rom",
    "rom_name",
    default="none",
    show_default=True,
    metavar="none|identity|batching|FILE",
    help="The ROM in the machine.",
)
@queue_option
@visibility_option
@machine_options
@click.option(
    "--check",
    "check_shadow",
    is_flag=True,
    help="Compare shadow and guest tables at every exit (slow).",
)
@click.option("--calls", "show_calls", is_flag=True, help="List the ROM's calls and their cost.")
@click.option(
    "--places",
    "place_count",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="List the N most frequent places.",
)
@as_json
def run(
    guest: str,
    rom_name: str,
    queue: int,
    visibility: str,
    policy: str,
    intercepts: tuple[str, ...],
    memory: int,
    append: str,
    max_instructions: int,
    place_count: int,
    *,
    check_shadow: bool,
    show_calls: bool,
    json_output: bool,
) -> None:
    """Run GUEST and account for its exits.

    GUEST is a built-in guest (see `vmirom guests`), a guest's source (a file *.S) or
    a Multiboot image. The exit status is 0 when the guest passed its own checks, 1 when it did not.
    """
    chosen = load_guest(guest)
    rom = load_rom(rom_name, queue, Visibility(visibility))
    about = description(
        policy, intercepts, memory, append, max_instructions, check_shadow=check_shadow
    )
    with progress() as tell:
        tell(f"{chosen.name}, ROM {rom.name}")
        machine = Machine(
            replace(about, guest=chosen.image, rom=rom.image),
            echo=None if json_output else tell.line,
        )
        result = machine.run(tell.watch)
    named = NamedRun(rom, result)
    if json_output:
        print_json(run_to_json(chosen.name, named, calls=show_calls, places=place_count))
    else:
        _print(chosen.name, named, show_calls=show_calls, place_count=place_count)
    if result.outcome.kind is OutcomeKind.INTERRUPTED:
        sys.exit(INTERRUPTED)
    if not result.outcome.ok:
        stderr.print(f"vmirom: {chosen.name}: {result.outcome}", markup=False)
        sys.exit(1)


def _print(guest: str, named: NamedRun, *, show_calls: bool, place_count: int) -> None:
    result = named.run
    stdout.print(
        f"{guest}, ROM {named.rom.name}, policy {result.policy.name}, engine {result.engine}: "
        f"{number(result.instructions)} instructions, {result.virtual_ns / 1e9:.6f} virtual "
        f"seconds",
        markup=False,
    )
    table = plain_table("exit reason", "exits", "light", "heavy")
    for reason, row in sorted(result.ledger.by_reason.items(), key=lambda item: -item[1].count):
        table.add_row(reason.value, number(row.count), number(row.light), number(row.heavy))
    table.add_section()
    ledger = result.ledger
    table.add_row("total", number(ledger.total), number(ledger.light), number(ledger.heavy))
    stdout.print(table)
    if ledger.engine_events:
        events = ", ".join(f"{name} {number(n)}" for name, n in ledger.engine_events.items())
        stdout.print(f"engine events, not exits: {events}", markup=False)
    if show_calls:
        _print_calls(result)
    if place_count:
        table = plain_table("reason", "at", "instruction", "exits")
        for place in ledger.places[:place_count]:
            table.add_row(
                place.reason.value, place.detail, f"{place.eip:#010x}", number(place.count)
            )
        stdout.print(table)
    for complaint in result.complaints:
        stderr.print(complaint, markup=False)
    if result.shadow_entries_checked:
        stdout.print(
            f"shadow checked: {number(result.shadow_entries_checked)} entries, no disagreement"
        )


def _print_calls(result: Run) -> None:
    table = plain_table("ROM call", "times", "instructions", "per call")
    for name, use in sorted(result.calls.items(), key=lambda item: -item[1].instructions):
        each = f"{use.instructions / use.count:.1f}" if use.count else ""
        table.add_row(name, number(use.count), number(use.instructions), each)
    stdout.print(table)
