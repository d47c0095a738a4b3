"""The API for notebooks, and what it reads results with."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.api import compare, run_suite
from bench.curve import queue_curves
from bench.intervals import Interval, mean_interval, ratio_interval
from bench.record import Row
from vmm.core.errors import BadDescription


def test_compare(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    line = "rounds=1 pages=32"
    results = compare("pagefault", ["none", "batching"], command_line=line, results=path)
    before = results.rows()
    results.close()
    assert [row.case.rom for row in before] == ["none", "batching"]
    assert {row.case.command_line for row in before} == {line}
    counts = [row.counts for row in before]
    assert counts[0] is not None
    assert counts[1] is not None
    assert counts[1].exits < counts[0].exits
    with compare("pagefault", command_line=line, results=path, queue=128) as again:
        rows = again.rows()
    assert rows[:2] == before
    assert [row.case.rom for row in rows[2:]] == ["identity"]


@pytest.mark.parametrize(
    ("suite", "says"), [("linux", "suite 'linux': expected one of batching, io, paging")]
)
def test_an_unknown_suite(suite: str, says: str) -> None:
    with pytest.raises(BadDescription, match=says):
        run_suite(suite)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    with run_suite("batching", guests=["pagefault"], quick=True) as results:
        return results.rows()


def test_a_curve_and_its_limit(rows: list[Row]) -> None:
    (curve,) = queue_curves(rows)
    assert curve.none == curve.identity
    assert [queue for queue, _ in curve.points] == [1, 8, 64, 128, 1024]
    last = curve.points[-1][1]
    assert last.queue_full == 0
    assert curve.limit == last.exits
    enough = curve.enough()
    assert enough is not None
    exits = {queue: counts.exits for queue, counts in curve.points}
    assert exits[enough] <= last.exits * 1.01
    assert all(exits[queue] > last.exits * 1.01 for queue in exits if queue < enough)


def test_a_curve_that_never_gets_there(rows: list[Row]) -> None:
    (curve,) = queue_curves(row for row in rows if row.case.queue in {1, 8})
    assert curve.limit is curve.enough() is curve.none is None


def test_curves_of_two_builds_are_two(rows: list[Row]) -> None:
    other = [replace(row, build=replace(row.build, code="0" * 64)) for row in rows]
    assert len(queue_curves([*rows, *other])) == 2


def test_intervals() -> None:
    """Student's t with 2 degrees of freedom at 97.5 %: 4.3027 (any table)."""
    pytest.importorskip("scipy")
    found = mean_interval([1.0, 2.0, 3.0])
    half = 4.3027 / 3**0.5
    assert found.mean == 2
    assert found.low == pytest.approx(2 - half, abs=1e-4)
    assert found.high == pytest.approx(2 + half, abs=1e-4)
    ratio = ratio_interval([2.0, 4.0, 6.6], [1.0, 2.0, 3.0])
    assert ratio.mean == pytest.approx((2 + 2 + 2.2) / 3)
    assert ratio_interval([3.0], [2.0]) == Interval(1.5)
    assert str(Interval(1.5)) == "1.50"


def test_intervals_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(BadDescription, match=r"pip install 'vmirom\[report\]'"):
        mean_interval([1.0, 2.0])
