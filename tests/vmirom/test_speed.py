"""`vmirom bench speed`: the table's rows, whatever their numbers."""

import json
from collections.abc import Callable
from itertools import pairwise

import pytest
from click.testing import Result

from bench.tcg import QEMU
from bench.yardstick import WORKS


@pytest.mark.peer(QEMU)
def test_the_command(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VMI_KERNEL", raising=False)
    monkeypatch.setattr("vmirom.speed._QUICK", 0.001)
    result = run("bench", "speed", "--quick", "--growth", "1000", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["schema"] == "vmirom.bench.speed/1"
    assert [row["name"] for row in found["rows"]] == [work.name for work in WORKS]
    assert {row["weight"] for row in found["exit_ns"]} == {"light", "heavy"}


def test_long_runs_are_ten_times_as_long_each(run: Callable[..., Result]) -> None:
    result = run("bench", "speed", "--long", "1000", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    exits = [row["exits"] for row in found["stretches"]]
    assert [row["work"] for row in found["stretches"]] == ["fork storm"] * 3 + ["CPUID"] * 3
    assert exits[3:] == [1000, 10000, 100000]
    for before, after in pairwise(exits[:3]):
        assert after == pytest.approx(10 * before, rel=0.3)
    assert len(found["cost_to_stretch_before"]) == 4
    assert all(row["early"] > 10_000 and row["late"] > 10_000 for row in found["stretches"])
    shown = run("bench", "speed", "--long", "1000")
    assert "Memory of the process" in shown.stdout
    assert "fork storm" in shown.stdout
