"""`vmirom bench slots`: the rows, and that what it compares finds the same."""

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from bench.slots import _search, spread_slots
from vmi.address import PAGE_SIZE
from vmm.core.slots import SlotList, lay_out


def test_the_command(run: Callable[..., Result]) -> None:
    result = run("bench", "slots", "--quick", "--count", "1", "--count", "50", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["schema"] == "vmirom.bench.slots/1"
    assert [row["slots"] for row in found["rows"]] == [1, 50]
    for row in found["rows"]:
        rates = {name for name, rate in row.items() if rate > 0}
        assert rates == {
            "slots", "memory", "nothing", "device", "first", "bisection", "linear", "changes",
        }  # fmt: skip


def test_the_table(run: Callable[..., Result]) -> None:
    result = run("bench", "slots", "--quick", "--count", "3")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[2].split() == [
        "slots", "memory", "nothing", "device", "first", "bisect", "linear", "lists/s",
    ]  # fmt: skip


@pytest.mark.parametrize("count", ["0", "100001", "many"])
def test_counts_that_cannot_be(run: Callable[..., Result], count: str) -> None:
    assert run("bench", "slots", "--count", count).exit_code == 2


def test_both_searches_find_the_same() -> None:
    slots = spread_slots(100)
    listed = SlotList(slots, lay_out([("ram", 16 * PAGE_SIZE)]))
    for address in range(0, 900 * PAGE_SIZE, PAGE_SIZE // 2):
        assert listed.find(address) == _search(slots, address)
