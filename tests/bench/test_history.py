"""Results over versions: what there is, and what changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bench.costs import model_named
from bench.history import compare_rows, eras, rows_of
from bench.iocost import io_costs
from bench.record import Row
from bench.store import Results
from bench.suites import IO_UNITS, batching, io
from bench.sweep import sweep
from vmirom.main import cli
from vmm.core.errors import BadDescription
from vmm.core.event import Reason, Weight
from vmm.core.ledger import ReasonCount
from vmm.core.outcome import OutcomeKind

NEHALEM = model_named("nehalem")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    with Results() as results:
        return sweep(batching(["ctxswitch"], quick=True)[:3], results)


def later(rows: Sequence[Row], code: str, more: int = 0) -> list[Row]:
    """The same by other code, with more CR writes in the last case."""
    build = replace(rows[0].build, version="9.1", code=code * 64)
    after = [
        replace(row, build=build, started_at=row.started_at + timedelta(days=1)) for row in rows
    ]
    counts = after[-1].counts
    assert counts is not None
    light = counts.by_reason[Reason.CR_WRITE].light + more
    by_reason = {**counts.by_reason, Reason.CR_WRITE: ReasonCount(light=light)}
    after[-1] = replace(after[-1], counts=replace(counts, by_reason=by_reason))
    return after


@pytest.fixture
def path(tmp_path: Path, rows: list[Row]) -> Path:
    path = tmp_path / "results.db"
    with Results(path) as results:
        for row in [*rows, *later(rows, "e", 7)]:
            results.add(row)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *arguments], prog_name="vmirom")


def test_eras(rows: list[Row]) -> None:
    found = eras([*later(rows, "e", 7), *rows])
    assert [era.build.version for era in found] == [rows[0].build.version, "9.1"]
    assert [(era.suite, era.cases, era.runs, era.failed) for era in found] == [
        ("batching", 3, 3, 0)
    ] * 2
    assert found[1].exits == found[0].exits + 7


def test_builds_by_name(rows: list[Row]) -> None:
    both = [*rows, *later(rows, "e")]
    assert rows_of(both, "") == rows_of(both, "9.1") == rows_of(both, "eee") == both[3:]
    assert rows_of(both, rows[0].build.label) == rows
    with pytest.raises(BadDescription, match=r"'8.0': none fits, there are .*9.1\+eeeeeeeeee"):
        rows_of(both, "8.0")
    with pytest.raises(BadDescription, match="several fit"):
        rows_of([*both, *later(rows, "d")], "9.1")
    with pytest.raises(BadDescription, match="no rows"):
        rows_of([], "")


def test_what_changed(rows: list[Row]) -> None:
    found = compare_rows(rows, later(rows, "e", 7))
    assert found.same == 2
    (change,) = found.changes
    assert change.case == rows[2].case
    names = {name: after - before for name, before, after in change.counts}
    assert names == {"exits": 7, "exits_light": 7, "exits_cr_write": 7}
    assert "code" in change.causes[0]


def test_another_image_is_named_and_not_another_case(rows: list[Row]) -> None:
    after = later(rows, "e", 1)
    after[-1] = replace(after[-1], case=replace(after[-1].case, rom_sha256="0" * 64))
    found = compare_rows(rows, after)
    assert "another rom image" in found.changes[0].causes
    assert not found.only_before
    assert not found.only_after


def test_an_outcome_that_changed(rows: list[Row]) -> None:
    after = [*rows[:2], replace(rows[2], outcome=OutcomeKind.FAILED)]
    assert compare_rows(rows, after).changes[0].counts == (("outcome", "passed", "failed"),)


def test_cases_on_one_side(rows: list[Row]) -> None:
    found = compare_rows(rows[:2], rows[1:])
    assert found.only_before == (rows[0].case,)
    assert found.only_after == (rows[2].case,)
    assert found.same == 1
    assert not found.changes


def test_the_verbs(path: Path, rows: list[Row]) -> None:
    shown = run("history", str(path))
    assert shown.exit_code == 0
    assert "9.1+eeeeeeeeee" in shown.stdout
    listed = json.loads(run("history", str(path), "--json").stdout)
    assert [era["runs"] for era in listed["eras"]] == [3, 3]

    changed = run("diff", f"{path}@{rows[0].build.label}", str(path))
    assert changed.exit_code == 1
    assert "exits_cr_write" in changed.stdout
    assert "(+7)" in changed.stdout
    assert "2 the same, 1 changed" in changed.stdout
    same = run("diff", str(path), f"{path}@9.1", "--json")
    assert same.exit_code == 0
    assert json.loads(same.stdout)["same"] == 3
    value: dict[str, Any] = json.loads(
        run("diff", f"{path}@{rows[0].build.code}", str(path), "--json").stdout
    )
    assert value["changed"][0]["counts"]["exits_cr_write"]["after"] > 7


@pytest.mark.parametrize("name", ["missing.db", "missing.db@1"])
def test_a_missing_file(path: Path, name: str) -> None:
    result = run("diff", str(path), str(path.parent / name))
    assert result.exit_code == 2
    assert "no such file" in result.stderr


def test_io_costs() -> None:
    with Results() as results:
        rows = sweep(io(quick=True), results)
    assert all(row.ok for row in rows)
    costs = {(cost.unit, cost.served_by): cost for cost in io_costs(rows)}
    plain = {unit: costs[unit, "plain device"] for unit in IO_UNITS}
    # 2,048 words of data; a command is count, three of address, drive, command, status.
    assert plain["reads"].exits == 2048 + 8 * 7
    assert plain["blocks"].exits == 2048 + 7
    assert plain["bytes"].exits == 2
    assert plain["times"].exits == 3
    assert all(cost.heavy == cost.exits for cost in plain.values())
    filtered = costs["bytes", "filter lsr+pit"]
    assert (filtered.exits, filtered.heavy) == (2, 1)
    polled = costs["polls", "filter lsr+pit"]
    assert (polled.exits, polled.heavy) == (2, 0)
    assert costs["times", "ROM, called"].exits == 0
    # Reflected, a string instruction is one access. The ROM rings twice for each command.
    for unit, commands in (("reads", 8), ("blocks", 1)):
        reflected = costs[unit, "ROM, reflected"]
        assert (reflected.exits - reflected.heavy, reflected.heavy) == (8 * commands, 2 * commands)
        for how in ("called", "patched"):
            cost = costs[unit, f"ROM, {how}"]
            assert cost.exits == cost.heavy == 2 * commands
    for cost in costs.values():
        assert (cost.cost(NEHALEM).typical > 0) == (cost.exits > 0)
    one = NEHALEM.cost(Reason.IO, Weight.HEAVY)
    assert plain["bytes"].cost(NEHALEM).typical == pytest.approx(2 * one.typical)
