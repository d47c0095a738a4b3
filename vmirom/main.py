"""The `vmirom` command: what the user asked for, or one clear line and status 2."""

import gc
import signal
import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, NoReturn

import click

from linker.errors import LinkError
from rombuilder.errors import BuildError
from vmirom.output import INTERRUPTED, stderr
from vmirom.version import VERSION
from vmm.core import is_compiled
from vmm.core.errors import EngineFailure, VmmError

__all__ = ["cli", "main"]

_BAD_INPUT = 2
_GARBAGE_THRESHOLD = 50_000
"""New container objects upon which the youngest are searched; Python starts with 700."""
_RUNS_A_MACHINE = {"resume", "run", "top", "compare", "bench"}


_VERBS = {
    "bench": "bench",
    "build": "build",
    "check": "check",
    "compare": "compare",
    "costs": "costs",
    "devices": "devices",
    "engines": "engines",
    "filters": "filters",
    "guests": "catalogue",
    "inspect": "inspect",
    "policies": "catalogue",
    "report": "report",
    "registers": "registers",
    "resume": "resume",
    "run": "run",
    "top": "top",
}
"""Each verb's module: loaded when asked for, as a run is shorter than loading them all."""
_NAMES = {"compare": "compare_command"}


class _Verbs(MutableMapping[str, click.Command]):
    """The commands by name."""

    def __init__(self) -> None:
        self._others: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name in self._others:
            return self._others[name]
        module = import_module(f"vmirom.{_VERBS[name]}")
        command: click.Command = getattr(module, _NAMES.get(name, name))
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._others[name] = command

    def __delitem__(self, name: str) -> None:
        del self._others[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**_VERBS, **self._others})

    def __len__(self) -> int:
        return len(set(_VERBS) | set(self._others))


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
            # CPython notes a KeyboardInterrupt out of code that it runs from a string, as
            # dataclasses are made, keeps that although it was caught, and ends by the signal
            # instead of the status; the next such code ends the note (pythonrun.c,
            # run_eval_code_obj).
            exec("")  # noqa: S102 - no code at all
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
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if context.invoked_subcommand in _RUNS_A_MACHINE and not is_compiled():
        stderr.print(
            "vmirom: the core is not compiled and runs interpreted, some fifteen times slower; "
            "install with a C compiler to change that",
            markup=False,
        )


cli.commands = _Verbs()


def main() -> None:
    """Run the command line; `vmirom.entry` calls this."""
    # Modules and machines are many objects that stay: looking for cycles among them again
    # and again takes a twentieth of a short run.
    gc.set_threshold(_GARBAGE_THRESHOLD)
    cli(prog_name="vmirom")
