"""`vmirom bench SUITE`: rows, tables, result files, and what is refused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bench.store import Results
from bench.suites import QUEUES

Json = dict[str, Any]
Run = Callable[..., Result]
RunJson = Callable[..., Json]
Start = Callable[..., subprocess.Popen[str]]

INTERRUPTED = 130
PATIENCE = 60
QUICK = ("bench", "batching", "--quick", "--guest", "pagefault")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def test_batching(run_json: RunJson, path: Path) -> None:
    one = ("--guest", "pagefault", "--policy", "svm-shadow", "--jobs", "1")
    value = run_json("bench", "batching", *one, "-o", str(path))
    assert value["schema"] == "vmirom.bench.rows/1"
    rows = value["rows"]
    assert [row["rom"] for row in rows] == ["none", "identity", *(["batching"] * len(QUEUES))]
    assert [row["queue"] for row in rows[2:]] == [1 << n for n in range(11)]
    exits = [row["exits"] for row in rows]
    assert exits[-1] < exits[2] < exits[1] == exits[0]
    full = [row["queue_full"] for row in rows[2:]]
    assert full == sorted(full, reverse=True)
    assert full[0] > full[-1] == 0
    assert all(row["outcome"] == "passed" for row in rows)
    with Results(path, create=False) as results:
        assert [row.record() for row in results.rows()] == rows
    assert run_json("bench", "batching", *one, "-o", str(path)) == value


def test_batching_in_words(run: Run) -> None:
    result = run(*QUICK, "--visibility", "tlb", "--visibility", "strict")
    assert result.exit_code == 0, result.output
    assert "queue full" in result.stdout
    assert "identity" in result.stdout
    assert "pagefault, svm-shadow: at best " in result.stdout
    assert "pagefault, svm-shadow, strict: at best " in result.stdout


def test_paging(run_json: RunJson, run: Run, path: Path) -> None:
    one = ("bench", "paging", "--quick", "--guest", "mmapstorm", "-o", str(path))
    rows = run_json(*one)["rows"]
    assert {row["policy"] for row in rows} == {"svm-shadow", "svm-unsync", "vtx-shadow", "npt"}
    assert {row["pages"] for row in rows} == {32}
    stores = {
        (row["policy"], row["rom"], row["visibility"]): row["exits_pte_write"] for row in rows
    }
    assert stores["svm-shadow", "none", None] > stores["svm-unsync", "none", None]
    assert stores["npt", "none", None] == 0
    assert stores["svm-shadow", "batching", "tlb"] < 10
    table = run(*one)
    assert table.exit_code == 0
    assert "strict" in table.stdout


def test_a_guest_that_fails(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "gloomy.S"
    parts = ("boot", "console", "cmdline", "vmi", "traps", "pages", "faults", "user")
    includes = "".join(f'\t.include "lib/{part}.inc"\n' for part in parts)
    source.write_text(
        f'{includes}\t.text\nguest_main:\tmov $5, %eax\n\tret\n\t.include "lib/end.inc"\n'
    )
    result = run("bench", "batching", "--quick", "--guest", str(source))
    assert result.exit_code == 1
    assert "vmirom: gloomy, no ROM, svm-shadow: failed" in result.stderr


def test_a_count_that_differs(run: Run, path: Path) -> None:
    assert run(*QUICK, "-o", str(path)).exit_code == 0
    with sqlite3.connect(path) as db:
        db.execute("UPDATE exits SET light = light + 1 WHERE reason = 'pte_write'")
    result = run(*QUICK, "-o", str(path), "--repetitions", "2")
    assert result.exit_code == 1
    assert "pagefault, no ROM, svm-shadow: repetition 1 counts differently" in result.stderr
    assert "exits_pte_write" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("batching", "--policy", "nested"), "nested"),
        (("batching", "--guest", "nosuch"), "guest 'nosuch': no such file"),
        (("batching", "--jobs", "0"), "0"),
        (("batching", "--quick", "-o", "/nowhere/results.db"), "/nowhere/results.db"),
        (("batching", "--quick", "-o", __file__), "not a database"),
        (("batching", "--quick", "--scheduler", "tcp://127.0.0.1:9"), "tcp://127.0.0.1:9"),
        (("linux",), "VMI_KERNEL is not set"),
        (("linux", __file__), "VMI_INITRD is not set"),
    ],
)
def test_bad_input(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], expected: str
) -> None:
    monkeypatch.delenv("VMI_KERNEL", raising=False)
    monkeypatch.delenv("VMI_INITRD", raising=False)
    monkeypatch.setattr("bench.cluster._PATIENCE", 1)
    result = run("bench", *arguments)
    assert result.exit_code == 2
    assert expected in result.stderr


def test_ctrl_c(start: Start, path: Path) -> None:
    process = start(*QUICK, "--repetitions", "200", "-o", str(path), "--jobs", "2")
    end = time.monotonic() + PATIENCE
    rows = 0
    while not rows:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)
        if path.exists() and path.stat().st_size:
            with Results(path) as results:
                rows = len(results)
    os.kill(process.pid, 2)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in out + err
    assert "queue full" in out
    assert f"-o {path}" in err
