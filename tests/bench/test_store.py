"""The result file: what goes in comes out, once, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.build import this_build
from bench.inputs import load_guest, load_rom
from bench.record import FORCED, Case, Counts, Row
from bench.resultschema import APPLICATION_ID, RUN_COLUMNS, TABLES, VERSION
from bench.store import CountsDiffer, Results
from vmi.doorbell import Doorbell
from vmm.core.errors import BadDescription
from vmm.core.event import Reason
from vmm.core.ledger import ReasonCount
from vmm.machine import Machine, MachineDescription, Run

SCHEMA_OF = {1: "36b88031c945a9e7affd9fd5008b3f5accfac0958bfe3bfd9dbbf71da81884e4"}
"""SHA-256 of each version's tables: who changes them gives them a new number."""


@pytest.fixture(scope="module")
def run() -> Run:
    rom = load_rom("batching", 16)
    about = MachineDescription(
        load_guest("pagefault").image, rom.image, command_line="rounds=2 pages=64"
    )
    return Machine(about).run()


@pytest.fixture
def row(run: Run) -> Row:
    return Row(
        case=Case(
            suite="batching",
            guest="pagefault",
            guest_sha256=run.guest_sha256,
            rom="batching",
            policy=run.policy.name,
            memory=64 << 20,
            command_line="rounds=2 pages=64",
            rom_sha256=run.rom_sha256,
            queue=16,
            calls="needed",
            visibility="tlb",
        ),
        build=this_build(),
        repetition=0,
        outcome=run.outcome.kind,
        detail=run.outcome.detail,
        counts=Counts.of(run, places=5),
        cpu_seconds=0.25,
        wall_seconds=0.5,
        started_at=datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
        measures={"sectors": 8.0},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def test_the_schema_has_not_changed_without_a_new_number() -> None:
    text = "".join("".join(statement.split()) for statement in TABLES.values())
    assert SCHEMA_OF[VERSION] == hashlib.sha256(text.encode()).hexdigest()
    assert all(
        "--" in line for table in TABLES.values() for line in table.splitlines()[2:-1]
        if line.startswith("    ") and "PRIMARY KEY (" not in line
    )  # fmt: skip


def test_what_goes_in_comes_out(path: Path, row: Row) -> None:
    bare = replace(row, repetition=1, counts=None, measures={})
    with Results(path) as results:
        assert results.add(row)
        assert results.add(bare)
    with Results(path, create=False) as results:
        assert results.rows() == [row, bare]
        assert results.rows("batching") == [row, bare]
        assert results.rows("linux") == []
        assert row.key in results
        assert len(results) == 2
        stored = results.rows()[0]
    assert stored.counts is not None
    assert row.counts is not None
    assert stored.counts.by_reason == row.counts.by_reason
    assert stored.counts.places == row.counts.places
    assert len(stored.counts.places) == 5
    assert stored.measures == {"sectors": 8.0}
    assert stored.build.host == row.build.host


def test_counts_are_those_of_the_run(run: Run, row: Row) -> None:
    counts = row.counts
    assert counts is not None
    assert counts.exits == run.ledger.total
    assert counts.light + counts.heavy == counts.exits
    assert counts.updates > 0
    by_function = {
        function: sum(
            place.count
            for place in run.ledger.places
            if (place.reason, place.detail) == (Reason.HYPERCALL, function.name)
        )
        for function in Doorbell
    }
    assert counts.forced == sum(by_function[function] for function in FORCED) > 0
    assert counts.queue_full == by_function[Doorbell.QUEUE_FULL] > 0
    once = by_function[Doorbell.ATTACH] + by_function[Doorbell.ADOPT_TABLES]
    assert counts.forced + counts.queue_full + once == counts.hypercalls


def test_unknown_places_make_unknown_points(run: Run) -> None:
    places = [place for place in run.ledger.places if place.reason is not Reason.HYPERCALL]
    counts = Counts.of(replace(run, ledger=replace(run.ledger, places=places)))
    assert counts.forced is counts.queue_full is None


def test_nothing_is_kept_twice(path: Path, row: Row) -> None:
    with Results(path) as results:
        assert results.add(row)
        elsewhere = replace(row, build=replace(row.build, host={"cpu": "another"}))
        assert not results.add(elsewhere)
        assert len(results) == 1


def test_a_count_that_differs_is_named(path: Path, row: Row) -> None:
    assert row.counts is not None
    more = dict(row.counts.by_reason)
    more[Reason.PTE_WRITE] = ReasonCount(light=more[Reason.PTE_WRITE].light + 1)
    other = replace(row, repetition=1, counts=replace(row.counts, by_reason=more))
    with Results(path) as results:
        results.add(row)
        with pytest.raises(CountsDiffer) as caught:
            results.add(other)
        assert len(results) == 1
        assert "repetition 1" in str(caught.value)
        assert "pagefault" in str(caught.value)
        assert f"exits_pte_write {more[Reason.PTE_WRITE].count}, was" in str(caught.value)
        changed_code = replace(other, build=replace(row.build, code="0" * 64))
        assert results.add(changed_code)


def test_light_and_heavy_that_change_places_are_found(row: Row) -> None:
    assert row.counts is not None
    swapped = {
        reason: ReasonCount(light=count.heavy, heavy=count.light)
        for reason, count in row.counts.by_reason.items()
    }
    names = [name for name, _, _ in row.counts.differences(replace(row.counts, by_reason=swapped))]
    assert "exits_heavy" in names
    assert "exits_hypercall (heavy)" in names


def test_a_row_that_fails_half_way_leaves_nothing(path: Path, row: Row) -> None:
    with Results(path) as results:
        broken = replace(row, measures={"a": None})  # type: ignore[dict-item]
        with pytest.raises(BadDescription, match="NOT NULL"):
            results.add(broken)
        assert len(results) == 0
        assert results.add(row)


def test_a_missing_file(path: Path) -> None:
    with pytest.raises(BadDescription, match="no such file"):
        Results(path, create=False)
    assert not path.exists()


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BadDescription, match="unable to open"):
        Results(tmp_path)


def test_another_kind_of_file(path: Path) -> None:
    path.write_bytes(b"bench results, honestly" * 100)
    with pytest.raises(BadDescription, match="not a database"):
        Results(path)


def test_a_foreign_database(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE runs (id INTEGER)")
    with pytest.raises(BadDescription, match="not one of vmirom's"):
        Results(path)


def test_a_newer_file(path: Path) -> None:
    Results(path).close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(BadDescription, match=f"schema {VERSION + 1}.*up to {VERSION}"):
        Results(path)


def test_a_reason_of_the_future(path: Path, row: Row) -> None:
    with Results(path) as results:
        results.add(row)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE exits SET reason = 'teleport' WHERE reason = 'io'")
    with Results(path) as results, pytest.raises(BadDescription, match="teleport"):
        results.rows()


def test_frame(row: Row) -> None:
    pd = pytest.importorskip("pandas")
    with Results() as results:
        results.add(row)
        results.add(replace(row, repetition=1, counts=None, measures={}))
        frame = results.frame()
    assert isinstance(frame, pd.DataFrame)
    assert row.counts is not None
    assert set(RUN_COLUMNS) - {"id", "key"} <= set(frame.columns)
    assert frame["exits"][0] == row.counts.exits
    assert frame["exits_pte_write"][0] == row.counts.by_reason[Reason.PTE_WRITE].count
    assert frame["exits_msr"][0] == 0
    assert frame["sectors"][0] == 8
    assert frame["exits"].isna().tolist() == [False, True]
    totals = frame[[f"exits_{reason.value}" for reason in Reason]].sum(axis=1)
    assert totals[0] == row.counts.exits


def test_frame_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with (
        Results() as results,
        pytest.raises(BadDescription, match=r"pip install 'vmirom\[report\]'"),
    ):
        results.frame()


def test_the_build_names_the_code(row: Row) -> None:
    assert len(row.build.code) == 64
    assert row.build.core in {"compiled", "interpreted"}
    assert row.build.host["cpus"].isdigit()
