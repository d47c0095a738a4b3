"""`vmirom top`: on a terminal, off it, as JSON, and after q and Ctrl-C."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

from bench.live import Pulse
from vmm.core.event import Reason
from vmm.core.ledger import Ledger, ReasonCount

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., Result]
RunJson = Callable[..., dict[str, Any]]
Start = Callable[..., subprocess.Popen[str]]
SMALL = ("--append", "rounds=2 pages=32")
LONG = ("--append", "rounds=1000000", "--interval", "0.1")


def test_rates_are_since_the_last_look() -> None:
    pulse = Pulse(100.0)
    ledger = Ledger({Reason.IO: ReasonCount(heavy=30), Reason.HLT: ReasonCount(light=10)})
    rows = pulse.rows(ledger, 102.0)
    assert [(row.event, row.total, row.percent, row.per_second) for row in rows] == [
        ("io", 30, 75.0, 15.0),
        ("hlt", 10, 25.0, 5.0),
    ]
    ledger.by_reason[Reason.HLT] = ReasonCount(light=70)
    rows = pulse.rows(ledger, 106.0)
    assert [(row.event, row.per_second) for row in rows] == [("hlt", 15.0), ("io", 0.0)]
    assert [row.per_second for row in pulse.totals(ledger, 110.0)] == [7.0, 3.0]
    assert pulse.rows(Ledger(), 111.0) == []


def test_totals_are_those_of_run(run: Run, run_json: RunJson) -> None:
    expected = run_json("run", "pagefault", *SMALL)["exits"]["by_reason"]
    value = run_json("top", "pagefault", *SMALL)
    assert value["schema"] == "vmirom.top/1"
    assert {row["event"]: row["total"] for row in value["rows"]} == {
        name: row["count"] for name, row in expected.items()
    }
    text = run("top", "pagefault", *SMALL).stdout
    assert "Event" in text
    assert "%Total" in text


def test_lines_where_stdout_is_no_terminal(start: Start) -> None:
    process = start("top", "forkstorm", *LONG)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert all(" exits, " in line and "pte_write" in line for line in lines)
    assert "Total" in out
    assert "interrupted" in out
    assert err == ""


def test_q_on_a_terminal_ends_with_the_totals() -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "vmirom", "top", "forkstorm", *LONG],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"},
        stdin=slave,
        stdout=slave,
        stderr=subprocess.DEVNULL,
    )
    os.close(slave)
    seen = b""
    asked = False
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if not select.select([master], [], [], 1)[0]:
                continue
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            seen += data
            if not asked and seen.count(b"CurAvg/s") >= 2:
                os.write(master, b"q")
                asked = True
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        os.close(master)
    assert asked
    last = seen.rpartition(b"stopped by the user")[2]
    assert b"Avg/s" in last
    assert b"pte_write" in last


def test_bad_interval(run: Run) -> None:
    result = run("top", "forkstorm", "--interval", "0")
    assert result.exit_code == 2
    assert "0.0 is not in the range" in result.stderr
