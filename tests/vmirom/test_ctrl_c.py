"""Ctrl-C stops a run with what was counted so far."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from vmm.engine.kvm.device import Kvm, KvmUnavailable

Start = Callable[..., subprocess.Popen[str]]

LONG = ("--append", "rounds=1000000")
INTERRUPTED = 130
PATIENCE = 4
"""Seconds: one, and more for a machine that runs other tests beside this one."""


def interrupt(process: subprocess.Popen[str], seconds: float = 4.0) -> tuple[str, str]:
    """Let it run, press Ctrl-C, and see it end in time."""
    time.sleep(seconds)
    assert process.poll() is None, process.stderr and process.stderr.read()
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


@pytest.mark.parametrize("rom", ["none", "batching"])
def test_run_in_json(start: Start, rom: str) -> None:
    out, err = interrupt(start("run", "forkstorm", "--rom", rom, "--json", *LONG))
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
