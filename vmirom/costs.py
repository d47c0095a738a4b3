"""`vmirom costs`: what an exit costs, by processor and by source."""

from itertools import groupby
from pathlib import Path

import click

from bench.costs import Model, Unit, load_file, load_models
from bench.costs.measure import as_toml, measure_engine
from bench.inputs import load_guest, load_rom
from bench.schema import models_to_json
from vmirom.estimates import one_exit
from vmirom.options import as_json
from vmirom.output import plain_table, print_json, progress, stdout
from vmm.core.errors import BadDescription
from vmm.machine import MachineDescription

__all__ = ["costs"]

_GUESTS = ("ctxswitch", "forkstorm", "mmapstorm", "pagefault")
"""What --measure runs: between them they exit for most reasons."""


@click.command(
    epilog="Examples: vmirom costs; vmirom costs --json; vmirom costs --file mine.toml; "
    "vmirom costs --measure -o engine.toml"
)
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="List the models of a file of your own instead.",
)
@click.option(
    "--measure", is_flag=True, help="Measure this engine's exits on this machine, as a model."
)
@click.option(
    "--repetitions",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="With --measure: runs of each guest with each ROM.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --measure: write the model to FILE, for --costs FILE.",
)
@as_json
def costs(
    path: Path | None,
    repetitions: int,
    output: Path | None,
    *,
    measure: bool,
    json_output: bool,
) -> None:
    """List cost models: cycles or time of one exit, each with its source.

    Use them with --costs of `vmirom compare` and `vmirom run`. A file of your own holds
    models of one source; docs/howto-costs.md shows one.
    """
    if measure and path is not None:
        raise BadDescription("--measure and --file: expected one of them")
    if output is not None and not measure:
        raise BadDescription(f"-o {str(output)!r}: means nothing without --measure")
    if measure:
        models: tuple[Model, ...] = (_measured(repetitions, output),)
    else:
        models = load_models() if path is None else load_file(path)
    if json_output:
        print_json(models_to_json(models))
        return
    for source, group in groupby(models, lambda model: (model.source, model.covers)):
        _print_source(*source, list(group))


def _measured(repetitions: int, output: Path | None) -> Model:
    guests = [load_guest(name) for name in _GUESTS]
    roms = [load_rom("none"), load_rom("batching")]
    with progress() as tell:
        model = measure_engine(
            guests, roms, MachineDescription(guest=b""), repetitions, tell, tell.watch
        )
    if output is not None:
        try:
            output.write_text(as_toml(model), encoding="utf-8")
        except OSError as error:
            raise BadDescription(f"{str(output)!r}: {error.strerror or error}") from None
    return model


def _print_source(source: str, covers: str, models: list[Model]) -> None:
    stdout.print(source, markup=False)
    table = plain_table("model", "light exit", "heavy exit", "GHz", "nested")
    for model in models:
        table.add_row(
            model.name,
            one_exit(model.light, model.unit),
            one_exit(model.any_heavy, model.unit),
            "" if model.clock_ghz is None else f"{model.clock_ghz:g}",
            "nested" if model.nested else "",
        )
    stdout.print(table)
    unit = "cycles, " if models[0].unit is Unit.CYCLES else ""
    stdout.print(f"  {unit}typical (low-high); {covers}", markup=False)
    factor = models[0].heavy_factor
    if factor is None and any(model.heavy is None for model in models):
        stdout.print("  heavy exits are taken as light ones: that source does not tell them")
    elif factor is not None:
        stdout.print(f"  heavy: not of that source, but a factor: {factor.source}", markup=False)
    clocks = {model.clock_source for model in models if model.clock_source}
    if clocks:
        stdout.print(f"  GHz: not of that source: {'; '.join(sorted(clocks))}", markup=False)
    stdout.print()
