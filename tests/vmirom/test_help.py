"""Every verb explains itself."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator

import click
import pytest
from click.testing import Result

from vmirom.main import cli

Run = Callable[..., Result]


def leaves(group: click.Group, *above: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*above, name)
        if isinstance(command, click.Group):
            yield from leaves(command, *above, name)


VERBS = list(leaves(cli))


def test_the_stable_verbs_are_there() -> None:
    expected = {"build", "inspect", "run", "compare", "bench", "guests", "policies"}
    assert expected <= set(cli.commands)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_shows_an_example(run: Run, verb: tuple[str, ...]) -> None:
    result = run(*verb, "--help")
    assert result.exit_code == 0
    assert result.stderr == ""
    text = " ".join(result.stdout.split())
    assert f"Usage: vmirom {' '.join(verb)}" in text
    assert re.search(rf"Examples?: vmirom {' '.join(verb[:1])}", text)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_examples_use_options_that_exist(verb: tuple[str, ...]) -> None:
    group: click.Command = cli
    for name in verb:
        assert isinstance(group, click.Group)
        group = group.commands[name]
    _, _, examples = (group.epilog or "").partition(":")
    for example in examples.split(";"):
        command: click.Command = cli
        words = shlex.split(example)[1:]
        while isinstance(command, click.Group) and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        known = {flag for parameter in command.params for flag in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known


def test_the_short_option(start: Callable[..., subprocess.Popen[str]]) -> None:
    """In its own process: click remembers a verb's help option from its first use."""
    out, err = start("run", "-h").communicate(timeout=60)
    assert (out.startswith("Usage: vmirom run"), err) == (True, "")


def test_version(run: Run) -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"vmirom, version \d+\.\d+\.\d+\n", result.stdout)


def test_without_a_verb_the_verbs_are_listed(run: Run) -> None:
    result = run()
    assert result.exit_code == 2
    assert "compare" in result.stderr
