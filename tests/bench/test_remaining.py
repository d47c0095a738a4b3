"""The classes of remaining exits: they add up, and their reasons follow from the run."""

from __future__ import annotations

import json
from functools import cache

import pytest
from click.testing import CliRunner

from bench.inputs import load_guest, load_rom
from bench.remaining import remaining
from bench.symbols import SymbolMap
from vmirom.main import cli
from vmm.core.policy import POLICIES, policy_named
from vmm.machine import Machine, MachineDescription, Run

NO_SYMBOLS = SymbolMap({})


@cache
def run_of(guest: str, rom: str, policy: str) -> Run:
    return Machine(
        MachineDescription(
            load_guest(guest).image,
            rom=load_rom(rom).image,
            command_line="rounds=2 pages=32",
            policy=policy_named(policy),
        )
    ).run()


def rows(run: Run) -> dict[tuple[str, str], tuple[str, str, int]]:
    return {
        (reason, what): (places, why, count)
        for reason, what, places, why, count, _ in remaining(run, NO_SYMBOLS).rows
    }


@pytest.mark.parametrize("policy", [policy.name for policy in POLICIES])
@pytest.mark.parametrize("rom", ["none", "identity", "batching"])
@pytest.mark.parametrize("guest", ["pagefault", "mmapstorm", "iostorm"])
def test_every_exit_is_in_one_class(guest: str, rom: str, policy: str) -> None:
    run = run_of(guest, rom, policy)
    view = remaining(run, NO_SYMBOLS)
    assert sum(row[4] for row in view.rows) == run.ledger.total
    assert view.left == 0
    assert all(row[3] for row in view.rows)
    by_reason: dict[str, int] = {}
    for row in view.rows:
        by_reason[row[0]] = by_reason.get(row[0], 0) + row[4]
    assert by_reason == {name.value: row.count for name, row in run.ledger.by_reason.items()}


def test_without_a_rom_stores_are_traced() -> None:
    native = rows(run_of("mmapstorm", "none", "svm-shadow"))
    assert "traces every table" in native["pte_write", "store to a traced table"][1]
    batching = rows(run_of("mmapstorm", "batching", "svm-shadow"))
    assert "was not announced" in batching["pte_write", "store to a traced table"][1]
    unsync = rows(run_of("mmapstorm", "none", "svm-unsync"))
    assert "since the last flush" in unsync["pte_write", "store to a traced table"][1]


def test_what_the_queue_told_is_told_apart() -> None:
    """Only with a queue are there hidden faults that find records waiting."""
    told = {
        rom: sum(
            count
            for (reason, what), (_, _, count) in rows(
                run_of("pagefault", rom, "svm-shadow")
            ).items()
            if reason == "shadow_fill" and what.endswith("told by the queue")
        )
        for rom in ("none", "identity", "batching")
    }
    assert told["none"] == told["identity"] == 0
    assert told["batching"] > 0


def test_a_fault_of_ring_3_is_one() -> None:
    run = run_of("pagefault", "none", "svm-shadow")
    faults = {what for reason, what in rows(run) if reason == "page_fault"}
    assert "read by ring 3, not present" in faults or "write by ring 3, not present" in faults
    assert any(what.endswith("protection") for what in faults)


def test_ports_are_named_by_device() -> None:
    found = {
        what for reason, what in rows(run_of("iostorm", "none", "svm-shadow")) if reason == "io"
    }
    assert {"8254 timer", "serial port", "IDE, first channel"} <= found


def test_the_most_frequent_places_stand_first_with_their_symbols() -> None:
    run = run_of("mmapstorm", "none", "svm-shadow")
    stores = [place for place in run.ledger.places if place.reason == "pte_write"]
    counts: dict[int, int] = {}
    for place in stores:
        counts[place.eip] = counts.get(place.eip, 0) + place.count
    eip, count = max(counts.items(), key=lambda item: (item[1], -item[0]))
    view = remaining(run, SymbolMap({"storing": eip}))
    (places,) = (row[2] for row in view.rows if row[0] == "pte_write")
    assert places.startswith(f"storing {count:,}")


def test_the_command_shows_the_last_rom() -> None:
    def call(*arguments: str) -> str:
        result = CliRunner().invoke(cli, arguments, prog_name="vmirom")
        assert result.exit_code == 0, result.output
        return result.stdout

    arguments = ("compare", "pagefault", "--roms", "none,batching", "--append", "rounds=2 pages=32")
    text = call(*arguments, "--remaining")
    assert "What remains with ROM batching, and why:" in text
    assert "told by the queue" in text
    value = json.loads(call(*arguments, "--remaining", "--json"))
    assert value["remaining"]["schema"] == "vmirom.remaining/1"
    total = value["runs"][1]["exits"]["total"]
    assert sum(row["exits"] for row in value["remaining"]["rows"]) == total
    assert "remaining" not in json.loads(call(*arguments, "--json"))
    (view,) = json.loads(call("run", "pagefault", "--by", "class", "--json"))["views"]
    assert view["schema"] == "vmirom.remaining/1"
    assert "why " in call("run", "pagefault", "--by", "class", "--top", "2")
