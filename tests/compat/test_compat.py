"""Guests and ROMs of older versions run here as they did there: see README.md."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent

Json = dict[str, Any]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record", HERE / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


record = script()

RUNS = [
    pytest.param(
        generation, run, id="-".join([generation, *map(run.get, ("guest", "rom", "policy"))])
    )
    for generation in record.generations()
    for run in record.load(generation)["runs"]
]


@pytest.mark.parametrize(("generation", "run"), RUNS)
def test_it_counts_what_it_counted(generation: str, run: Json) -> None:
    said = record.differences(run, record.measure(generation, run))
    assert not said, "; ".join(said) + " (tests/compat/README.md says what may change)"


@pytest.mark.parametrize("generation", record.generations())
def test_images_are_never_changed(generation: str) -> None:
    folder = HERE / generation
    images = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.suffix in {".bin", ".rom"}
    }
    assert images == record.load(generation)["images"]


def test_no_count_changes_without_a_reason() -> None:
    assert record.last_rows() == {
        generation: record.digest(generation) for generation in record.generations()
    }


def test_differences_are_said() -> None:
    run = record.load("0.1")["runs"][0]
    other = {**run, "virtual_ns": 1, "exits": {**run["exits"], "hlt": [1, 0]}}
    assert record.differences(run, run) == []
    assert record.differences(run, other) == [
        f"virtual_ns: {run['virtual_ns']}, now 1",
        "exits hlt: [0, 0] (light, heavy), now [1, 0]",
    ]


@pytest.mark.parametrize(
    "arguments", [("0.1",), ("--again", "0.0", "--why", "no"), ("--again", "0.1")]
)
def test_what_is_there_is_not_recorded_by_mistake(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    before = record.digest("0.1")
    with pytest.raises(SystemExit):
        record.main(arguments)
    assert "error:" in capsys.readouterr().err
    assert record.digest("0.1") == before
