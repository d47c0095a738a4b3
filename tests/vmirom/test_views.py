"""`run --stat`, `--by`, `--csv` and `--trace` as a user meets them; the schemas, guarded."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bench.costs import model_named
from bench.trace import LINE_KEYS, TRACE_SCHEMA
from bench.views import VIEWS
from vmm.core.event import Reason, Weight

Json = dict[str, Any]
Run = Callable[..., Result]
RunJson = Callable[..., Json]
Start = Callable[..., subprocess.Popen[str]]
SMALL = ("--append", "rounds=2 pages=32")

COLUMNS = {
    "vmirom.stat/1": (
        [
            "vm_exit",
            "samples",
            "samples_percent",
            "time_percent",
            "min",
            "max",
            "avg",
            "unit",
            "error_percent",
        ]
    ),
    "vmirom.ports/1": ["port", "size", "direction", "exits", "percent"],
    "vmirom.addresses/1": ["reason", "space", "address", "exits", "percent"],
    "vmirom.instructions/1": ["eip", "symbol", "reasons", "exits", "percent"],
}
"""Version 1 for good: other columns need another number."""


def test_the_schemas_are_what_they_were() -> None:
    assert {schema.name: list(schema.columns) for schema in VIEWS} == COLUMNS
    assert all(meaning for schema in VIEWS for meaning in schema.columns.values())


def test_every_key_of_a_trace_line_is_documented(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert run("run", "pagefault", "--trace", str(path), *SMALL).exit_code == 0
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        value = json.loads(line)
        keys = [key for key in value if key != "type"]
        assert found.setdefault(value["type"], keys) == keys
    documented: dict[str, list[str]] = {}
    for kind, key, _ in LINE_KEYS:
        documented.setdefault(kind, []).append(key)
    assert found == documented
    assert TRACE_SCHEMA == "vmirom.trace/1"


def test_stat_by_a_model(run_json: RunJson, run: Run) -> None:
    arguments = ("run", "forkstorm", "--rom", "batching", "--stat", "--costs", "nehalem", *SMALL)
    value = run_json(*arguments)
    (view,) = value["views"]
    assert (view["schema"], view["times"], view["model"]) == ("vmirom.stat/1", "model", "nehalem")
    rows = {row["vm_exit"]: row for row in view["rows"]}
    exits = value["exits"]["by_reason"]
    assert {name: row["samples"] for name, row in rows.items()} == {
        name: row["count"] for name, row in exits.items()
    }
    model = model_named("nehalem")
    for name, row in rows.items():
        light = model.in_seconds(model.cost(Reason(name), Weight.LIGHT))
        heavy = model.in_seconds(model.cost(Reason(name), Weight.HEAVY))
        assert light is not None
        assert heavy is not None
        counts = exits[name]
        typical = (light.typical * counts["light"] + heavy.typical * counts["heavy"]) * 1e6
        assert row["avg"] == pytest.approx(typical / counts["count"], abs=0.001)
        assert row["min"] <= row["avg"] <= row["max"]
        assert row["unit"] == "us"
        assert row["error_percent"] is None
    assert sum(row["time_percent"] for row in rows.values()) == pytest.approx(100, abs=0.1)
    text = run(*arguments).stdout
    assert "VM-EXIT    Samples  Samples%     Time%" in text
    assert "Times are not measured but by the cost model nehalem" in text


def test_stat_measured(run_json: RunJson, run: Run) -> None:
    (view,) = run_json("run", "forkstorm", "--stat", *SMALL)["views"]
    assert (view["times"], view["model"]) == ("measured", None)
    for row in view["rows"]:
        assert 0 < row["min"] <= row["avg"] <= row["max"]
        assert row["error_percent"] >= 0
    assert "Times are measured" in run("run", "forkstorm", "--stat", *SMALL).stdout


def test_a_model_without_a_clock_counts_cycles(run_json: RunJson) -> None:
    (view,) = run_json("run", "forkstorm", "--stat", "--costs", "skylake", *SMALL)["views"]
    assert {row["unit"] for row in view["rows"]} == {"cycles"}


def test_places_add_up(run_json: RunJson) -> None:
    value = run_json(
        *("run", "forkstorm", "--by", "port", "--by", "address", "--by", "instruction", *SMALL)
    )
    views = {view["schema"]: view for view in value["views"]}
    exits = value["exits"]
    ports = views["vmirom.ports/1"]
    assert sum(row["exits"] for row in ports["rows"]) == exits["by_reason"]["io"]["count"]
    assert {(row["port"], row["size"], row["direction"]) for row in ports["rows"]} >= {
        ("0x0402", 1, "out")
    }
    instructions = views["vmirom.instructions/1"]
    assert sum(row["exits"] for row in instructions["rows"]) == exits["total"]
    assert any("pte_write" in row["reasons"] and row["symbol"] for row in instructions["rows"])
    addresses = views["vmirom.addresses/1"]
    by_reason: dict[str, int] = {}
    for row in addresses["rows"]:
        assert int(row["address"], 16) % 4096 == 0
        by_reason[row["reason"]] = by_reason.get(row["reason"], 0) + row["exits"]
    assert by_reason == {
        name: exits["by_reason"][name]["count"]
        for name in ("pte_write", "shadow_fill", "page_fault")
    }
    assert all(view["left_out"] == 0 for view in views.values())


def test_top_cuts_and_says_so(run_json: RunJson, run: Run) -> None:
    whole = run_json("run", "forkstorm", "--by", "instruction", *SMALL)["views"][0]["rows"]
    cut = run_json("run", "forkstorm", "--by", "instruction", "--top", "2", *SMALL)["views"][0]
    assert cut["rows"] == whole[:2]
    assert cut["left_out"] == sum(row["exits"] for row in whole[2:]) > 0
    text = run("run", "forkstorm", "--by", "instruction", "--top", "2", *SMALL).stdout
    assert f"and {cut['left_out']:,} exits that are in none of these rows" in text


@pytest.mark.parametrize(
    ("options", "schema"),
    [
        (("--stat", "--costs", "merom"), "vmirom.stat/1"),
        (("--by", "port"), "vmirom.ports/1"),
        (("--by", "address"), "vmirom.addresses/1"),
        (("--by", "instruction"), "vmirom.instructions/1"),
    ],
)
def test_csv_says_what_json_says(
    run: Run, run_json: RunJson, options: tuple[str, ...], schema: str
) -> None:
    text = run("run", "forkstorm", *options, "--csv", *SMALL).stdout
    header, *lines = csv.reader(io.StringIO(text))
    assert header == ["schema", *COLUMNS[schema]]
    rows = run_json("run", "forkstorm", *options, *SMALL)["views"][0]["rows"]
    assert lines == [
        [schema, *("" if row[name] is None else str(row[name]) for name in header[1:])]
        for row in rows
    ]


def test_observing_changes_no_count(run_json: RunJson, tmp_path: Path) -> None:
    plain = run_json("run", "mmapstorm", "--rom", "batching", *SMALL)
    seen = run_json(
        *("run", "mmapstorm", "--rom", "batching", *SMALL, "--stat", "--by", "address"),
        *("--trace", str(tmp_path / "a.json.gz")),
    )
    assert seen.pop("trace")["exits"] == plain["exits"]["total"]
    assert len(seen.pop("views")) == 2
    assert seen == plain


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--costs", "nehalem"), "--costs: means nothing to run without --stat"),
        (("--top", "3"), "--top 3: means nothing without --by"),
        (("--csv",), "--csv: expected one view and no --json, got 0 views"),
        (("--csv", "--stat", "--by", "port"), "expected one view and no --json, got 2 views"),
        (("--csv", "--stat", "--json"), "got 1 view and --json"),
        (("--by", "moon"), "'moon' is not one of 'port', 'address', 'instruction'"),
        (("--trace", "/nonexistent/a.json"), "trace '/nonexistent/a.json': No such file"),
        (("--trace-limit", "lots"), "'lots': expected a number of bytes"),
    ],
)
def test_bad_options(run: Run, arguments: tuple[str, ...], says: str) -> None:
    result = run("run", "pagefault", *arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())


def test_a_trace_after_ctrl_c_is_whole(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    process = start(
        *("run", "forkstorm", "--append", "rounds=1000000", "--trace", str(path), "--json"),
        *("--trace-limit", "1M"),
    )
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size > 500_000):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    other = json.loads(path.read_text(encoding="utf-8"))["otherData"]
    value = json.loads(out)
    assert other["outcome"] == "interrupted"
    assert other["exits"] + other["left_out"] == value["exits"]["total"]
    assert value["trace"]["left_out"] == other["left_out"]
