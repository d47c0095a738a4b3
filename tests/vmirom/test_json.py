"""What scripts rely on: keys, types, order, exit status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from vmm.core.event import Reason
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import POLICIES

Json = dict[str, Any]
Run = Callable[..., Result]
RunJson = Callable[..., Json]

SMALL = ("--append", "rounds=2 pages=32")


def check_run(value: Json) -> None:
    assert value["schema"] == "vmirom.run/1"
    assert isinstance(value["guest"], str)
    assert {"flavour", "sha256"} <= set(value["rom"])
    assert value["policy"]
    assert value["engine"] == "unicorn"
    assert value["outcome"] in set(OutcomeKind)
    assert isinstance(value["instructions"], int)
    assert value["instructions"] > 0
    assert isinstance(value["virtual_seconds"], float)
    assert isinstance(value["console"], str)
    exits = value["exits"]
    rows = exits["by_reason"]
    assert set(rows) <= set(Reason)
    assert exits["total"] == sum(row["count"] for row in rows.values())
    assert exits["total"] == exits["light"] + exits["heavy"]
    for row in rows.values():
        assert row["count"] == row["light"] + row["heavy"] > 0
        expected = "heavy" if not row["light"] else "mixed" if row["heavy"] else "light"
        assert row["weight"] == expected
    assert all(isinstance(count, int) for count in value["engine_events"].values())
    assert {"updates", "flushes", "largest_batch"} <= set(value["paravirt"])


@pytest.mark.parametrize("policy", [policy.name for policy in POLICIES])
@pytest.mark.parametrize("rom", ["none", "identity", "batching"])
def test_run(run_json: RunJson, rom: str, policy: str) -> None:
    value = run_json("run", "pagefault", "--rom", rom, "--policy", policy, *SMALL)
    check_run(value)
    assert value["guest"] == "pagefault"
    assert value["rom"]["flavour"] == rom
    assert (value["rom"]["sha256"] is None) == (rom == "none")
    assert value["policy"] == policy
    assert value["outcome"] == "passed"
    assert "pagefault: " in value["console"]
    assert "calls" not in value
    assert "places" not in value


def test_run_with_calls_and_places(run_json: RunJson) -> None:
    value = run_json("run", "forkstorm", "--rom", "batching", "--calls", "--places", "3", *SMALL)
    check_run(value)
    assert value["calls"]["SetPxE"] == value["paravirt"]["updates"] > 0
    assert set(value["calls"]) == set(value["call_instructions"])
    counts = [place["count"] for place in value["places"]]
    assert len(counts) == 3
    assert counts == sorted(counts, reverse=True)
    assert all(place["reason"] in set(Reason) for place in value["places"])


def test_places_account_for_every_exit(run_json: RunJson) -> None:
    value = run_json("run", "ctxswitch", "--places", "1000", *SMALL)
    by_reason: dict[str, int] = {}
    for place in value["places"]:
        by_reason[place["reason"]] = by_reason.get(place["reason"], 0) + place["count"]
    assert by_reason == {name: row["count"] for name, row in value["exits"]["by_reason"].items()}


def test_compare_keeps_the_order(run_json: RunJson) -> None:
    value = run_json("compare", "mmapstorm", "--roms", "batching,none,identity", *SMALL)
    assert value["schema"] == "vmirom.compare/1"
    assert [one["rom"]["flavour"] for one in value["runs"]] == ["batching", "none", "identity"]
    assert [row["rom"] for row in value["saved"]] == ["batching", "none", "identity"]
    for one in value["runs"]:
        check_run(one)
    totals = [one["exits"]["total"] for one in value["runs"]]
    assert [row["exits"] for row in value["saved"]] == [totals[0] - total for total in totals]
    assert value["saved"][1]["exits"] < 0


def test_a_rom_from_a_file_counts_as_the_built_one(run_json: RunJson, tmp_path: Path) -> None:
    file = tmp_path / "my.rom"
    built = run_json("build", "-o", str(file))
    from_file = run_json("run", "pagefault", "--rom", str(file), *SMALL)
    by_name = run_json("run", "pagefault", "--rom", "batching", *SMALL)
    assert from_file["rom"]["sha256"] == built["sha256"] == by_name["rom"]["sha256"]
    assert from_file["rom"]["flavour"] == "my.rom"
    assert from_file["exits"] == by_name["exits"]


def test_an_intercept_changes_what_counts_and_nothing_else(run_json: RunJson) -> None:
    plain = run_json("run", "pagefault", *SMALL)
    more = run_json("run", "pagefault", "--intercept", "+software_interrupt", *SMALL)
    events = plain["engine_events"]["software_interrupt"]
    assert events > 0
    assert more["exits"]["by_reason"]["other"]["count"] == events
    assert more["exits"]["total"] == plain["exits"]["total"] + events
    assert "software_interrupt" not in more["engine_events"]
    assert more["policy"] == "svm-shadow+software_interrupt"
    assert more["instructions"] == plain["instructions"]


def test_guests(run_json: RunJson) -> None:
    value = run_json("guests")
    names = [guest["name"] for guest in value["guests"]]
    assert names == sorted(names)
    assert {"forkstorm", "mmapstorm", "pagefault", "ctxswitch"} <= set(names)
    assert all(guest["summary"] for guest in value["guests"])


def test_policies(run_json: RunJson) -> None:
    value = run_json("policies")
    assert [policy["name"] for policy in value["policies"]][:1] == ["svm-shadow"]
    npt = next(policy for policy in value["policies"] if policy["name"] == "npt")
    assert not npt["shadow"]
    assert "pte_write" not in npt["exits"]
    assert "rdtsc" in value["intercepts"]


def test_inspect_tells_defects_by_status(run: Run, rom: bytes, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.rom", tmp_path / "bad.rom"
    good.write_bytes(rom)
    bad.write_bytes(rom[:-1] + bytes([rom[-1] ^ 1]))
    assert run("inspect", str(good)).exit_code == 0
    result = run("inspect", str(bad))
    assert result.exit_code == 1
    assert "checksum" in result.stdout


def test_bench_exits(run_json: RunJson) -> None:
    value = run_json("bench", "exits", "--guest", "pagefault", "--repetitions", "1")
    assert value["core"] in {"compiled", "interpreted"}
    rows = value["rows"]
    assert [row["rom"] for row in rows] == ["none", "batching"]
    for row in rows:
        assert row["exits"] == sum(reason["count"] for reason in row["by_reason"].values())
        assert row["exits_per_second"] > 0
    assert rows[0]["instructions_per_update"] is None
    assert rows[1]["instructions_per_update"] > 0
