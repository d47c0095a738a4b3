"""`vmirom bench speed`: the table's rows, whatever their numbers."""

import json
from collections.abc import Callable

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
