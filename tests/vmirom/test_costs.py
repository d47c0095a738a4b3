"""`vmirom costs`, and `--costs` of compare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
RunJson = Callable[..., dict[str, Any]]
SMALL = ("--append", "rounds=2 pages=32", "--roms", "none,batching")


def test_the_list_names_every_source(run: Run, run_json: RunJson) -> None:
    models = run_json("costs")["models"]
    text = run("costs").stdout
    for model in models:
        assert model["name"] in text
        assert model["source"] in text
        low, typical, high = (model["light"][end] for end in ("low", "typical", "high"))
        assert 0 < low <= typical <= high
        assert model["heavy"]["typical"] >= typical
        assert model["heavy_source"] in text


def test_compare_adds_cycles_and_time(run: Run, run_json: RunJson) -> None:
    value = run_json("compare", "mmapstorm", "--costs", "nehalem", "--costs", "skylake", *SMALL)
    first, second = value["costs"]
    assert [first["model"]["name"], second["model"]["name"]] == ["nehalem", "skylake"]
    for i, one in enumerate(value["runs"]):
        exits = one["exits"]
        assert first["runs"][i]["exits"] == exits["total"]
        cycles = first["runs"][i]["cycles"]
        assert cycles["low"] == 1009 * exits["total"]
        assert cycles["typical"] == pytest.approx(
            1009 * exits["light"] + 3.1 * 1009 * exits["heavy"]
        )
        assert cycles["high"] == pytest.approx(3000 * exits["light"] + 3.1 * 3000 * exits["heavy"])
        assert first["runs"][i]["seconds"]["low"] == pytest.approx(cycles["low"] / 2.93e9)
        assert second["runs"][i]["seconds"] is None
    saved = first["saved"][1]
    assert saved["exits"] == value["saved"][1]["exits"] > 0
    assert saved["cycles"]["low"] > 0
    text = run("compare", "mmapstorm", "--costs", "nehalem", *SMALL).stdout
    assert "Estimated cost, not measured, by nehalem" in text
    assert "Table 1" in text
    assert "ROM batching saved " in text.partition("Estimated")[2]


def test_a_clock_of_ones_own(run_json: RunJson) -> None:
    value = run_json("compare", "mmapstorm", "--costs", "skylake", "--clock", "2", *SMALL)
    row = value["costs"][0]["runs"][0]
    assert row["seconds"]["typical"] == pytest.approx(row["cycles"]["typical"] / 2e9)


def test_hardware_paging_leaves_nothing_to_save(run: Run) -> None:
    result = run("compare", "mmapstorm", "--policy", "npt", "--costs", "nehalem", *SMALL)
    assert "ROM batching saved nothing" in result.stdout.partition("Estimated")[2]
    assert "no page-table exits to save" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--costs", "i486"), "cost model 'i486': no such file, and not one of prescott, merom"),
        (("--costs", "engine"), "it is measured, not given; run `vmirom costs --measure"),
        (("--costs", "no/such.toml"), "cost models 'no/such.toml': No such file"),
        (("--clock", "2"), "--clock 2: means nothing without --costs"),
        (("--costs", "nehalem", "--clock", "0"), "0.0 is not in the range 0<x<=100"),
    ],
)
def test_bad_models(run: Run, arguments: tuple[str, ...], says: str) -> None:
    result = run("compare", "mmapstorm", *arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())


def test_a_file_is_listed_as_it_was_understood(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'schema = "vmirom.costs/1"\nsource = "[me]"\ncovers = "all"\nunit = "cycles"\n'
        '[[model]]\nname = "mine"\ngeneration = "x"\nlight = 7\n',
        encoding="utf-8",
    )
    text = run("costs", "--file", str(path)).stdout
    assert text.startswith("[me]\n")
    assert "mine" in text
    assert "heavy exits are taken as light ones" in text


def test_the_engine_measures_itself(run: Run, run_json: RunJson, tmp_path: Path) -> None:
    path = tmp_path / "engine.toml"
    value = run_json("costs", "--measure", "--repetitions", "2", "-o", str(path))
    (model,) = value["models"]
    assert (model["name"], model["unit"]) == ("engine", "ns")
    assert model["source"].startswith("measured on ")
    assert {"pte_write", "hypercall", "io", "page_fault"} <= set(model["by_reason"])
    again = run_json("costs", "--file", str(path))["models"]
    assert again == [model]
    compared = run_json("compare", "mmapstorm", "--costs", str(path), *SMALL)["costs"][0]
    assert compared["runs"][0]["seconds"]["typical"] > 0
    assert compared["runs"][0]["cycles"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--measure", "--file", "a.toml"), "--measure and --file: expected one of them"),
        (("-o", "a.toml"), "-o 'a.toml': means nothing without --measure"),
        (("--measure", "--repetitions", "0"), "0 is not in the range x>=1"),
    ],
)
def test_bad_measuring(run: Run, arguments: tuple[str, ...], says: str) -> None:
    result = run("costs", *arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())
