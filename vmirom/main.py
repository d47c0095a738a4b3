"""The `vmirom` command: what the user asked for, or one clear line and status 2."""

import sys
from typing import Any, NoReturn

import click

from linker.errors import LinkError
from rombuilder.errors import BuildError
from vmirom.bench import bench
from vmirom.build import build
from vmirom.catalogue import guests, policies
from vmirom.check import check
from vmirom.compare import compare_command
from vmirom.costs import costs
from vmirom.engines import engines
from vmirom.filters import filters
from vmirom.inspect import inspect
from vmirom.output import INTERRUPTED, stderr
from vmirom.run import run
from vmirom.version import VERSION
from vmm.core import is_compiled
from vmm.core.errors import EngineFailure, VmmError

__all__ = ["cli", "main"]

_BAD_INPUT = 2
_RUNS_A_MACHINE = {"run", "compare", "bench"}


class _Cli(click.Group):
    """Says what is wrong in one line, whoever found it."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run and exit: 0 done, 1 the answer is no, 2 bad input or usage, 130 Ctrl-C."""
        extra["standalone_mode"] = False
        try:
            status = super().main(*args, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(_BAD_INPUT)
        except click.ClickException as error:
            _complain(error.format_message())
        except click.Abort:
            sys.exit(INTERRUPTED)
        except EngineFailure as failure:
            _complain(f"the engine cannot be used: {failure}")
        except (VmmError, BuildError, LinkError) as error:
            _complain(str(error))
        sys.exit(status if isinstance(status, int) else 0)


def _complain(text: str) -> NoReturn:
    stderr.print(f"vmirom: {' '.join(text.split())}", markup=False)
    sys.exit(_BAD_INPUT)


@click.group(cls=_Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="vmirom")
@click.pass_context
def cli(context: click.Context) -> None:
    """A paravirtual ROM toolkit.

    Build a VMI option ROM, run guests with and without it, and count the exits that
    it saves. Start with: vmirom compare forkstorm
    """
    if context.invoked_subcommand in _RUNS_A_MACHINE and not is_compiled():
        stderr.print(
            "vmirom: the core is not compiled and runs interpreted, some fifteen times slower; "
            "install with a C compiler to change that",
            markup=False,
        )


for command in (
    build,
    inspect,
    check,
    run,
    compare_command,
    bench,
    guests,
    policies,
    costs,
    engines,
    filters,
):
    cli.add_command(command)


def main() -> None:
    """Entry point."""
    cli(prog_name="vmirom")
