"""Running the command: in this process, or in one of its own where signals are due."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rombuilder.rom import Flavour, build_rom
from vmirom.main import cli

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., Result]
Json = dict[str, Any]


@pytest.fixture
def run() -> Run:
    """Runs `vmirom` with arguments."""

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments, prog_name="vmirom")

    return call


@pytest.fixture
def run_json(run: Run) -> Callable[..., Json]:
    """Runs `vmirom` with arguments and `--json`; the status must be 0."""

    def call(*arguments: str) -> Json:
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        value = json.loads(result.stdout)
        assert isinstance(value, dict)
        return value

    return call


@pytest.fixture
def start() -> Callable[..., subprocess.Popen[str]]:
    """Starts `vmirom` in a process of its own."""

    def call(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "vmirom", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return call


@pytest.fixture(scope="session")
def rom() -> bytes:
    """A sound ROM."""
    return build_rom(Flavour.BATCHING).data
