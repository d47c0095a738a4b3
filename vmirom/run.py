"""`vmirom run`: one guest, one ROM, one ledger."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.compare import NamedRun
from bench.costs import Model
from bench.inputs import load_guest, machine_with
from bench.schema import run_to_json
from bench.symbols import SymbolMap
from vmirom.estimates import costs_options
from vmirom.observe import Asked, observe_options, observing
from vmirom.options import (
    Listed,
    RomTuning,
    as_json,
    engine_option,
    listing_options,
    machine_options,
    rom_option,
    rom_options,
)
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
from vmirom.typist import typing_on
from vmm.core.errors import BadDescription
from vmm.core.outcome import OutcomeKind
from vmm.engines import create_machine, engine_named
from vmm.machine import Machine, MachineDescription, Run

if TYPE_CHECKING:
    from vmm.kvm_machine import KvmMachine

__all__ = ["print_run", "run", "run_json"]


@click.command(
    epilog="Examples: vmirom run forkstorm --rom batching; "
    "vmirom run guest.bin --rom rom.bin --policy npt --json; "
    "vmirom run pagefault --rom batching --calls --places 10; "
    "vmirom run bzImage --initrd init.cpio.gz --append 'console=ttyS0 panic=1' --rom batching "
    "--symbols System.map --places 20; vmirom run forkstorm --stat; "
    "vmirom run forkstorm --by address --by instruction --top 5; "
    "vmirom run forkstorm --rom batching --trace forkstorm.json.gz; "
    "vmirom run bzImage --initrd init.cpio.gz --disk disk.img --rom batching --reflect"
)
@click.argument("guest")
@rom_option
@engine_option
@rom_options
@machine_options
@click.option(
    "--check",
    "check_shadow",
    is_flag=True,
    help="Compare shadow and guest tables at every exit (slow).",
)
@click.option(
    "--threads",
    is_flag=True,
    help="A host thread for each virtual CPU: they run in parallel, and counts do not repeat.",
)
@listing_options
@click.option(
    "--console",
    "console_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write what the guest printed to FILE as well.",
)
@click.option(
    "-i",
    "--interactive",
    is_flag=True,
    help="Type stdin on the guest's serial port, whenever the guest waits for input.",
)
@click.option(
    "--save",
    "save_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Save the machine to FILE where a limit, --until or Ctrl-C ends the run; "
    "`vmirom resume` goes on from there.",
)
@observe_options
@costs_options
@as_json
def run(
    guest: str,
    rom_name: str,
    engine: str,
    tuning: RomTuning,
    about: MachineDescription,
    models: tuple[Model, ...],
    listed: Listed,
    console_file: Path | None,
    save_file: Path | None,
    asked: Asked,
    *,
    interactive: bool,
    check_shadow: bool,
    threads: bool,
    json_output: bool,
) -> None:
    """Run GUEST and account for its exits.

    GUEST is a built-in guest (see `vmirom guests`), a guest's source (a file
    *.S), a Multiboot image, or a Linux bzImage or vmlinux. The exit status is 0 when
    the guest passed its own checks or, as Linux does, rebooted, and 1 when it did not.
    """
    asked.check(models, as_json=json_output)
    if interactive and save_file is not None:
        raise BadDescription("--save: means nothing with -i, which ends with the guest")
    chosen = load_guest(guest)
    rom = tuning.load(rom_name)
    symbols = listed.symbols(chosen.symbols)
    with progress() as tell:
        tell(f"{chosen.name}, ROM {rom.name}")
        machine = create_machine(
            engine_named(engine),
            replace(machine_with(about, chosen, rom), check_shadow=check_shadow, threads=threads),
            None if json_output or asked.csv or interactive else tell.line,
        )
        tell.follow(machine)
        names = {"guest": chosen.name, "rom": rom.name, "policy": about.policy.name}
        with observing(machine, asked, models, names, symbols) as seen:
            result = (
                _interact(machine, tell, show=not json_output)
                if interactive
                else _run(machine, tell, save_file)
            )
            if seen.trace is not None:
                seen.trace.finish(result)
    named = NamedRun(rom, result)
    if console_file is not None:
        _write_console(console_file, result.console)
    if json_output:
        print_json(run_json(chosen.name, named, symbols, listed) | seen.to_json(result))
    elif asked.csv:
        seen.print_csv(result)
    else:
        print_run(chosen.name, named, symbols, listed)
        seen.show(f"{chosen.name}, ROM {rom.name}", result)
    if result.outcome.kind is OutcomeKind.INTERRUPTED:
        sys.exit(INTERRUPTED)
    if rom.image is not None and result.counts_instructions and "vmi_init" not in result.calls:
        stderr.print(f"vmirom: {chosen.name} has not taken the ROM", markup=False)
    if not result.outcome.ok:
        if not json_output and result.outcome.kind is not OutcomeKind.FAILED:
            _print_state(result, symbols)
        stderr.print(f"vmirom: {chosen.name}: {result.outcome}", markup=False)
        sys.exit(1)


def _run(machine: "Machine | KvmMachine", tell: Progress, path: Path | None) -> Run:
    """Run, and say where the machine is saved if that was asked for."""
    if path is None:
        return machine.run(tell.watch)
    if not isinstance(machine, Machine):
        machine.close()
        raise BadDescription("--save needs engine unicorn: a machine on KVM cannot be saved")
    result = machine.run(tell.watch, save=path)
    tell.quiet()
    what = f"saved to {str(path)!r}" if machine.saved_to is not None else "not saved: it has ended"
    stderr.print(f"vmirom: the machine is {what}", markup=False)
    return result


def _interact(machine: "Machine | KvmMachine", tell: Progress, *, show: bool) -> Run:
    """Run with stdin on the guest's serial port."""
    if not isinstance(machine, Machine):
        machine.close()
        raise BadDescription("-i needs engine unicorn, which knows when a guest waits for input")
    tell.quiet()
    with typing_on(machine, show=show) as typist:

        def watch(instructions: int) -> None:
            tell.watch(instructions)
            typist.look()

        return machine.run(watch)


def _write_console(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadDescription(f"console {str(path)!r}: {error.strerror or error}") from None


def run_json(guest: str, named: NamedRun, symbols: SymbolMap, listed: Listed) -> dict[str, Any]:
    """The same as `print_run` prints, as a JSON object."""
    return run_to_json(
        guest, named, calls=listed.show_calls, places=listed.place_count, symbols=symbols
    )


def print_run(guest: str, named: NamedRun, symbols: SymbolMap, listed: Listed) -> None:
    """The exits of a run by reason, and what else was asked for."""
    result = named.run
    stdout.print(
        f"{guest}, ROM {named.rom.name}, policy {result.policy.name}, engine {result.engine}: "
        f"{_length(result)}",
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
    if result.reflection is not None:
        stdout.print(
            f"reflection: {result.reflection.sites} instructions found, "
            f"{result.reflection.patched} more replaced by calls of the ROM"
        )
    for each in result.filters:
        stdout.print(
            f"filter {each.name}: {number(each.answered)} reads answered in the core, "
            f"{number(each.passed)} left to the device",
            markup=False,
        )
    if listed.show_calls:
        _print_calls(result)
    if listed.place_count:
        table = plain_table("reason", "at", "instruction", "in", "exits")
        table.columns[3].justify = "left"
        for place in ledger.places[: listed.place_count]:
            table.add_row(
                place.reason.value,
                place.detail,
                f"{place.eip:#010x}",
                symbols.name(place.eip),
                number(place.count),
            )
        stdout.print(table)
    _print_parts(result)
    for complaint in result.complaints:
        stderr.print(complaint, markup=False)
    if result.shadow_entries_checked:
        stdout.print(
            f"shadow checked: {number(result.shadow_entries_checked)} entries, no disagreement"
        )


def _length(result: Run) -> str:
    """How long a run was, in what its engine measures."""
    seconds = f"{result.virtual_ns / 1e9:.6f} virtual seconds"
    if result.counts_instructions:
        return f"{number(result.instructions)} instructions, {seconds}"
    return seconds


def _print_state(result: Run, symbols: SymbolMap) -> None:
    """Where the guest stood, for one that did not end by itself."""
    eip = result.registers["eip"]
    stdout.print(f"at {eip:#010x} {symbols.name(eip)}", markup=False)
    stdout.print(
        " ".join(f"{name} {value:#x}" for name, value in result.registers.items()), markup=False
    )
    table = plain_table("latest events", "at", "instruction", "in")
    table.columns[3].justify = "left"
    for place in result.latest:
        table.add_row(
            place.reason.value, place.detail, f"{place.eip:#010x}", symbols.name(place.eip)
        )
    stdout.print(table)


def _print_parts(result: Run) -> None:
    """What each CPU and each phase had of it, where there are several."""
    if len(result.vcpus) > 1:
        _print_vcpus(result)
    if result.phases:
        _print_phases(result)


def _print_vcpus(result: Run) -> None:
    table = plain_table("CPU", "instructions", "virtual s", "exits", "light", "heavy")
    for index, share in enumerate(result.vcpus):
        table.add_row(
            str(index),
            number(share.instructions),
            f"{share.virtual_ns / 1e9:.3f}",
            number(share.ledger.total),
            number(share.ledger.light),
            number(share.ledger.heavy),
        )
    stdout.print(table)


def _print_phases(result: Run) -> None:
    table = plain_table("phase until", "instructions", "virtual s", "exits", "light", "heavy")
    for phase in result.phases:
        table.add_row(
            phase.mark,
            number(phase.instructions),
            f"{phase.virtual_ns / 1e9:.3f}",
            number(phase.ledger.total),
            number(phase.ledger.light),
            number(phase.ledger.heavy),
        )
    stdout.print(table)


def _print_calls(result: Run) -> None:
    table = plain_table("ROM call", "times", "instructions", "per call")
    for name, use in sorted(result.calls.items(), key=lambda item: -item[1].instructions):
        each = f"{use.instructions / use.count:.1f}" if use.count else ""
        table.add_row(name, number(use.count), number(use.instructions), each)
    stdout.print(table)
