"""The result file: rows that survive a crash, each with where it comes from."""

import dataclasses
import json
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.record import Build, Case, Counts, Row
from bench.resultschema import APPLICATION_ID, RUN_COLUMNS, TABLES, VERSION
from vmm.core.errors import BadDescription, VmmError
from vmm.core.event import Reason
from vmm.core.ledger import Place, ReasonCount
from vmm.core.outcome import OutcomeKind

__all__ = ["CountsDiffer", "Results"]

_PATIENCE = 30
"""Seconds to wait for another process that writes to the same file."""

_CASE = tuple(field.name for field in dataclasses.fields(Case))
_SCALARS = tuple(
    field.name for field in dataclasses.fields(Counts) if field.name not in {"by_reason", "places"}
)


class CountsDiffer(VmmError):
    """Two runs that must count the same did not."""

    def __init__(self, row: Row, stored: Row, differences: list[tuple[str, Any, Any]]) -> None:
        shown = "; ".join(f"{name} {here}, was {there}" for name, here, there in differences)
        super().__init__(
            f"{row.case.label}: repetition {row.repetition} counts differently from "
            f"repetition {stored.repetition}: {shown}"
        )
        self.row, self.stored, self.differences = row, stored, differences


class Results:
    """A result file, open. Without a path, results in memory.

    Every `add` is one synchronous transaction: a killed program leaves whole rows. Several
    programs may write to one file. Raises `BadDescription` for a file that is no result
    file, is newer than this program, or cannot be opened; `create=False` for one that
    must exist.
    """

    def __init__(self, path: Path | None = None, *, create: bool = True) -> None:
        self._name = ":memory:" if path is None else str(path)
        if path is not None and not create and not path.exists():
            raise BadDescription(f"results {self._name!r}: no such file")
        try:
            self._db = sqlite3.connect(self._name, timeout=_PATIENCE, isolation_level=None)
        except sqlite3.Error as error:
            raise BadDescription(f"results {self._name!r}: {error}") from None
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            raise BadDescription(f"results {self._name!r}: {error}") from None
        except BadDescription:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("BEGIN IMMEDIATE" if self._pragma("application_id") == 0 else "BEGIN")
        with self._db:
            if self._is_empty():
                for statement in TABLES.values():
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {VERSION}")
                return
            if self._pragma("application_id") != APPLICATION_ID:
                raise BadDescription(
                    f"results {self._name!r}: an SQLite file, but not one of vmirom's"
                )
            version = self._pragma("user_version")
            if version > VERSION:
                raise BadDescription(
                    f"results {self._name!r}: schema {version}, and this vmirom knows "
                    f"up to {VERSION}; expected an older file or a newer vmirom"
                )

    def _is_empty(self) -> bool:
        return not self._db.execute("SELECT 1 FROM sqlite_master").fetchone()

    def _pragma(self, name: str) -> int:
        value: int = self._db.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    # ---- writing

    def add(self, row: Row) -> bool:
        """Keep a row; false when the file has it already.

        Raises `CountsDiffer`, with nothing kept, when another run of the same case by
        the same code counted something else.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                if self._db.execute("SELECT 1 FROM runs WHERE key = ?", (row.key,)).fetchone():
                    return False
                self._check(row)
                self._insert(row)
        except sqlite3.Error as error:
            raise BadDescription(f"results {self._name!r}: {error}") from None
        return True

    def _check(self, row: Row) -> None:
        if row.counts is None:
            return
        same = " AND ".join(f"{name} IS ?" for name in (*_CASE, "code"))
        values = [*dataclasses.asdict(row.case).values(), row.build.code]
        for stored in self._read(f"WHERE counted AND {same} ORDER BY repetition LIMIT 1", values):
            assert stored.counts is not None  # noqa: S101 - the query says so
            differences = list(row.counts.differences(stored.counts))
            if differences:
                raise CountsDiffer(row, stored, differences)

    def _insert(self, row: Row) -> None:
        values = _flat(row)
        names = ", ".join(values)
        marks = ", ".join("?" * len(values))
        run = self._db.execute(
            f"INSERT INTO runs ({names}) VALUES ({marks})",  # noqa: S608 - names are ours
            tuple(values.values()),
        ).lastrowid
        if row.counts is not None:
            self._db.executemany(
                "INSERT INTO exits VALUES (?, ?, ?, ?)",
                [(run, r.value, n.light, n.heavy) for r, n in row.counts.by_reason.items()],
            )
            self._db.executemany(
                "INSERT INTO places VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (run, rank, place.reason.value, place.detail, place.eip, place.count)
                    for rank, place in enumerate(row.counts.places)
                ],
            )
        self._db.executemany(
            "INSERT INTO measures VALUES (?, ?, ?)",
            [(run, name, value) for name, value in row.measures.items()],
        )

    # ---- reading

    def __contains__(self, key: object) -> bool:
        return bool(self._db.execute("SELECT 1 FROM runs WHERE key = ?", (key,)).fetchone())

    def __len__(self) -> int:
        count: int = self._db.execute("SELECT count(*) FROM runs").fetchone()[0]
        return count

    def rows(self, suite: str | None = None) -> list[Row]:
        """All rows, or those of one suite, in the order in which they were kept."""
        where = "" if suite is None else "WHERE suite = ?"
        try:
            return list(self._read(f"{where} ORDER BY id", () if suite is None else (suite,)))
        except (sqlite3.Error, ValueError) as error:
            raise BadDescription(f"results {self._name!r}: {error}") from None

    def _read(self, clause: str, values: Iterable[Any]) -> Iterator[Row]:
        columns = ", ".join(RUN_COLUMNS)
        query = f"SELECT {columns} FROM runs {clause}"  # noqa: S608 - no text of users in it
        for found in self._db.execute(query, tuple(values)).fetchall():
            record = dict(zip(RUN_COLUMNS, found, strict=True))
            run = record["id"]
            exits = {
                Reason(reason): ReasonCount(light, heavy)
                for reason, light, heavy in self._db.execute(
                    "SELECT reason, light, heavy FROM exits WHERE run = ?", (run,)
                )
            }
            places = tuple(
                Place(Reason(reason), detail, eip, count)
                for reason, detail, eip, count in self._db.execute(
                    "SELECT reason, detail, eip, count FROM places WHERE run = ? ORDER BY rank",
                    (run,),
                )
            )
            measures = dict(
                self._db.execute("SELECT name, value FROM measures WHERE run = ?", (run,))
            )
            yield _row(record, exits, places, measures)

    def frame(self, suite: str | None = None) -> Any:
        """The rows as a pandas DataFrame, one run a row.

        Columns are those of `runs` (docs/reference/results.md) without `id` and `key`, the
        exits of each reason as `exits_pte_write` and so on, and each measure by its name.
        Raises `BadDescription` when pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 - an extra
        except ImportError:
            raise BadDescription(
                "a data frame needs pandas: pip install 'vmirom[report]'"
            ) from None
        return pd.DataFrame([_record(row) for row in self.rows(suite)])


def _flat(row: Row) -> dict[str, Any]:
    """Columns of `runs`, `id` apart."""
    record = {"key": row.key, **_record(row)}
    return {name: record[name] for name in RUN_COLUMNS if name in record}


def _record(row: Row) -> dict[str, Any]:
    """A row of the data frame; text in place of objects."""
    return {**row.record(), "host": json.dumps(dict(row.build.host), sort_keys=True)}


def _row(
    record: dict[str, Any],
    exits: dict[Reason, ReasonCount],
    places: tuple[Place, ...],
    measures: dict[str, float],
) -> Row:
    """What `_flat` took apart."""
    counts = None
    if record["counted"]:
        scalars = {name: record[name] for name in _SCALARS}
        counts = Counts(by_reason=exits, places=places, **scalars)
    return Row(
        case=Case(**{name: record[name] for name in _CASE}),
        build=Build(record["version"], record["code"], record["core"], json.loads(record["host"])),
        repetition=record["repetition"],
        outcome=OutcomeKind(record["outcome"]),
        counts=counts,
        detail=record["detail"],
        cpu_seconds=record["cpu_seconds"],
        wall_seconds=record["wall_seconds"],
        started_at=datetime.fromisoformat(record["started_at"]),
        measures=measures,
    )
