"""`vmirom run --save` and `vmirom resume`: counts as those of a run that was never left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HALF = ("--max-instructions", "1000000")


def vmirom(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vmirom", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def counts(told: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    value = json.loads(told.stdout)
    return {key: value[key] for key in ("exits", "instructions", "console", "outcome", "paravirt")}


def test_resumed_twice(tmp_path: Path) -> None:
    file = tmp_path / "half"
    run = ("run", "forkstorm", "--rom", "batching")
    told = vmirom(*run, *HALF, "--save", file)
    assert told.returncode == 1
    assert f"saved to {str(file)!r}" in told.stderr
    whole = counts(vmirom(*run, "--json"))
    for _ in range(2):
        told = vmirom("resume", file, "--json")
        assert told.returncode == 0
        assert counts(told) == whole


def test_what_is_listed_is_of_both_halves(tmp_path: Path) -> None:
    file, names = tmp_path / "half", tmp_path / "System.map"
    run = ("run", "forkstorm", "--rom", "batching")
    lists = ("--calls", "--places", "5")
    whole = json.loads(vmirom(*run, *lists, "--json").stdout)
    assert vmirom(*run, *HALF, "--save", file).returncode == 1
    halves = json.loads(vmirom("resume", file, *lists, "--json").stdout)
    for key in ("calls", "call_instructions"):
        assert halves[key] == whole[key]
    where = [(place["eip"], place["count"]) for place in whole["places"]]
    assert len(where) == 5
    assert [(place["eip"], place["count"]) for place in halves["places"]] == where
    names.write_text(f"{int(where[0][0], 16) - 4:08x} T most\n")
    shown = vmirom("resume", file, *lists, "--symbols", names).stdout
    assert "SetPxE" in shown
    assert "most+0x4" in shown
    told = vmirom("resume", file, "--symbols", tmp_path / "none")
    assert told.returncode == 2
    assert "No such file" in told.stderr


def test_until_and_again(tmp_path: Path) -> None:
    file = tmp_path / "half"
    assert vmirom("run", "ctxswitch", "--until", "ctxswitch", "--save", file).returncode == 0
    assert vmirom("resume", file).returncode == 0


def test_a_guest_that_has_ended_is_not_saved(tmp_path: Path) -> None:
    told = vmirom("run", "probe", "--save", tmp_path / "none")
    assert told.returncode == 0
    assert "not saved: it has ended" in told.stderr
    assert not (tmp_path / "none").exists()


def test_an_interactive_run_is_not_saved(tmp_path: Path) -> None:
    told = vmirom("run", "probe", "-i", "--save", tmp_path / "none")
    assert told.returncode == 2
    assert "--save: means nothing with -i" in told.stderr


def test_bad_files(tmp_path: Path) -> None:
    file = tmp_path / "bad"
    for content, text in ((None, "No such file"), (b"", "truncated"), (b"x" * 1000, "truncated")):
        if content is not None:
            file.write_bytes(content)
        told = vmirom("resume", file)
        assert told.returncode == 2
        assert text in told.stderr
        assert "Traceback" not in told.stderr
