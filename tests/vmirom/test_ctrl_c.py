"""Ctrl-C stops a run with what was counted so far."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vmm.engine.kvm.device import Kvm, KvmUnavailable

Start = Callable[..., subprocess.Popen[str]]

LONG = ("--append", "rounds=1000000")
INTERRUPTED = 130
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 10
"""Seconds: one, and more for a machine that runs other tests beside this one."""


BUSY = 2.0
"""Seconds of CPU time after which a run is well under way, however busy the machine is."""


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors (proc(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def interrupt(process: subprocess.Popen[str], busy: float = BUSY) -> tuple[str, str]:
    """Let it run, press Ctrl-C, and see it end in time."""
    while cpu_seconds(process.pid) < busy:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    try:
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert time.monotonic() - start < PATIENCE
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in out + err
    return out, err


@pytest.mark.parametrize(
    ("rom", "more"),
    [("none", ()), ("batching", ()), ("none", ("--cpus", "2", "--threads"))],
)
def test_run_in_json(start: Start, rom: str, more: tuple[str, ...]) -> None:
    out, err = interrupt(start("run", "forkstorm", "--rom", rom, "--json", *more, *LONG))
    value = json.loads(out)
    assert err == ""
    assert value["outcome"] == "interrupted"
    assert value["exits"]["total"] > 0
    assert value["instructions"] > 0


def test_run_in_words(start: Start) -> None:
    out, _ = interrupt(start("run", "ctxswitch", *LONG))
    assert "cr_write" in out
    assert "total" in out


def test_compare_stops_at_the_run_it_is_in(start: Start) -> None:
    out, err = interrupt(start("compare", "forkstorm", "--json", *LONG))
    runs = json.loads(out)["runs"]
    assert err == ""
    assert [run["outcome"] for run in runs] == ["interrupted"]


def test_bench(start: Start) -> None:
    interrupt(start("bench", "exits", "--repetitions", "1000"))


def test_engine_kvm(start: Start) -> None:
    try:
        Kvm().close()
    except KvmUnavailable as reason:
        pytest.skip(str(reason))
    out, err = interrupt(start("run", "portstorm", "--engine", "kvm", "--json", *LONG))
    value = json.loads(out)
    assert err == ""
    assert (value["outcome"], value["engine"]) == ("interrupted", "kvm")
    assert value["exits"]["heavy"] > 0
    assert value["instructions"] is None


def test_before_there_is_anything_to_count(start: Start) -> None:
    process = start("run", "forkstorm", *LONG)
    while cpu_seconds(process.pid) < 0.2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in out + err


WHILE_IT_LOADS = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from vmirom.entry import main
main()
"""
WHILE_A_CLASS_IS_MADE = """
import sys, click
from vmirom.main import cli, main
cli.commands["made"] = click.Command("made", callback=lambda: exec("raise KeyboardInterrupt"))
sys.argv = ["vmirom", "made"]
main()
"""


@pytest.mark.parametrize("code", [WHILE_IT_LOADS, WHILE_A_CLASS_IS_MADE])
def test_the_status_is_the_same_at_any_moment(code: str, tmp_path: Path) -> None:
    """As a module: it is there that CPython looks at its note of an interrupt."""
    (tmp_path / "moment.py").write_text(code, encoding="ascii")
    done = subprocess.run(
        [sys.executable, "-m", "moment"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == INTERRUPTED
    assert "Traceback" not in done.stderr
