"""`vmirom filters` and `--filter`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
Json = dict[str, Any]

GOOD = '\t.section "port/0x80"\n\tr0 = 0\n\texit\n'
BAD = '\t.section "port/0x80"\n\tr0 = r10\n\texit\n'


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    def make(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return make


def test_what_comes_along(run: Run, run_json: Callable[..., Json]) -> None:
    assert "0x40-0x42, 0x61" in run("filters").stdout
    listed = run_json("filters")
    assert [row["name"] for row in listed["filters"]] == ["lsr", "pit"]
    assert all(row["rejected"] is None and row["longest_run"] for row in listed["filters"])


def test_files_are_verified(run: Run, write: Callable[[str, str], str]) -> None:
    good, bad = write("good.bpf", GOOD), write("bad.bpf", BAD)
    assert run("filters", good).exit_code == 0
    result = run("filters", good, bad)
    assert result.exit_code == 1
    assert "rejected" in result.stdout
    assert "bad.bpf:3: instruction 1 (exit): r0 is an address" in result.stderr
    listed = run("filters", bad, "--json")
    assert listed.exit_code == 1
    assert '"instruction": 1' in listed.stdout


@pytest.mark.parametrize(
    ("text", "reason"),
    [("nonsense", "no instruction|outside a section"), ("\udcff", "UTF-8"), (BAD, "rejected")],
)
def test_a_bad_filter_is_refused(run: Run, tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "f.bpf"
    path.write_bytes(text.encode(errors="surrogateescape"))
    result = run("run", "probe", "--filter", str(path))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert any(part in result.stderr for part in reason.split("|")), result.stderr


def test_run_says_what_a_filter_did(run: Run, run_json: Callable[..., Json]) -> None:
    small = ("run", "calibrate", "--append", "rounds=1 steps=2", "--filter", "pit")
    assert "filter pit: " in run(*small).stdout
    result = run_json(*small)
    (used,) = result["filters"]
    assert used["name"] == "pit"
    assert used["answered"] == result["exits"]["by_reason"]["io"]["light"] > 0
