"""`vmirom resume`: a saved machine goes on."""

import sys
from pathlib import Path

import click

from bench.compare import NamedRun
from bench.inputs import RomChoice
from bench.symbols import SymbolMap
from vmirom.options import Listed, as_json, listing_options
from vmirom.output import INTERRUPTED, print_json, progress, stderr
from vmirom.run import print_run, run_json
from vmm.core.outcome import OutcomeKind
from vmm.description import DEFAULT_MAX_INSTRUCTIONS
from vmm.machine import Machine

__all__ = ["resume"]


@click.command(
    epilog="Examples: vmirom resume half.vmirom; vmirom resume half.vmirom --json; "
    "vmirom resume half.vmirom --until 'login:' --save later.vmirom"
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--max-instructions",
    type=click.IntRange(min=1),
    default=DEFAULT_MAX_INSTRUCTIONS,
    show_default=True,
    metavar="N",
    help="End the run after N guest instructions, those before it was saved included.",
)
@click.option(
    "--until",
    default="",
    metavar="TEXT",
    help="End the run, as passed, when the console prints a line with TEXT.",
)
@click.option(
    "--disk",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the disk's image is now.",
)
@click.option(
    "--save",
    "save_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Save the machine again where a limit, --until or Ctrl-C ends the run.",
)
@listing_options
@as_json
def resume(
    file: Path,
    max_instructions: int,
    until: str,
    disk: Path | None,
    save_file: Path | None,
    listed: Listed,
    *,
    json_output: bool,
) -> None:
    """Run the machine that was saved to FILE on to its end.

    Its counts go on from where they were: they end as those of a run that was never left. The exit
    status is as that of `vmirom run`.
    """
    symbols = listed.symbols(SymbolMap({}))
    with progress() as tell:
        tell(str(file))
        machine = Machine.resume(
            file,
            None if json_output else tell.line,
            disk=disk,
            tell=tell,
            max_instructions=max_instructions,
            until=until,
        )
        tell.follow(machine)
        result = machine.run(tell.watch, save=save_file)
    for name in machine.unknown:
        stderr.print(f"vmirom: {name}: not on both sides, left as it is here", markup=False)
    if machine.saved_to is not None:
        stderr.print(f"vmirom: the machine is saved to {str(save_file)!r}", markup=False)
    image = machine.description.rom
    named = NamedRun(RomChoice("none" if image is None else "saved", image), result)
    if json_output:
        print_json(run_json(file.name, named, symbols, listed))
    else:
        print_run(file.name, named, symbols, listed)
    if result.outcome.kind is OutcomeKind.INTERRUPTED:
        sys.exit(INTERRUPTED)
    if not result.outcome.ok:
        stderr.print(f"vmirom: {file.name}: {result.outcome}", markup=False)
        sys.exit(1)
