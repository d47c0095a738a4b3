"""What result files hold over versions, and what changed between two of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bench.record import Build, Case, Row
from vmm.core.errors import BadDescription

__all__ = ["Change", "Difference", "Era", "compare_rows", "eras", "rows_of"]


@dataclass(frozen=True, slots=True)
class Era:
    """What one suite gave under one version of the code."""

    build: Build
    suite: str
    first: datetime
    last: datetime
    cases: int
    runs: int
    failed: int
    exits: int
    """Of all cases together, each counted once."""


def eras(rows: Iterable[Row]) -> list[Era]:
    """Rows by version, code and suite, oldest first."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.build.version, row.build.code, row.case.suite), []).append(row)
    found = []
    for (_, _, suite), members in groups.items():
        cases = {row.case: row for row in members}
        times = [row.started_at for row in members]
        found.append(
            Era(
                build=members[0].build,
                suite=suite,
                first=min(times),
                last=max(times),
                cases=len(cases),
                runs=len(members),
                failed=sum(not row.ok for row in members),
                exits=sum(row.counts.exits for row in cases.values() if row.counts is not None),
            )
        )
    return sorted(found, key=lambda era: era.first)


def rows_of(rows: Sequence[Row], wanted: str) -> list[Row]:
    """The rows of one build: its version, the start of its code's hash, or both as 0.1.0+ab12.

    Empty text means the latest. Raises `BadDescription` when no build or more than
    one fits.
    """
    builds: dict[str, Build] = {}
    for row in sorted(rows, key=lambda row: row.started_at):
        builds[row.build.code] = row.build
    if not builds:
        raise BadDescription("results: no rows")
    fitting = [
        build
        for build in builds.values()
        if wanted in {"", build.version}
        or build.code.startswith(wanted)
        or f"{build.version}+{build.code}".startswith(wanted)
    ]
    if not wanted:
        fitting = fitting[-1:]
    if len(fitting) != 1:
        known = ", ".join(build.label for build in builds.values())
        raise BadDescription(
            f"build {wanted!r}: {'several fit' if fitting else 'none fits'}, there are {known}"
        )
    return [row for row in rows if row.build.code == fitting[0].code]


@dataclass(frozen=True, slots=True)
class Change:
    """A case whose counts differ: (name, before, after) of each; and what else is not the same."""

    case: Case
    counts: tuple[tuple[str, Any, Any], ...]
    causes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Two sets of rows side by side. Cases that are the same in both are only counted."""

    changes: tuple[Change, ...]
    same: int
    only_before: tuple[Case, ...]
    only_after: tuple[Case, ...]


def compare_rows(before: Sequence[Row], after: Sequence[Row]) -> Difference:
    """Match cases by all but the hashes of their images, and compare counts and outcomes."""
    old, new = _by_name(before), _by_name(after)
    changes = []
    same = 0
    for name, one in old.items():
        other = new.get(name)
        if other is None:
            continue
        found = tuple(_differences(one, other))
        if found:
            changes.append(Change(other.case, found, tuple(_causes(one, other))))
        else:
            same += 1
    return Difference(
        tuple(changes),
        same,
        tuple(row.case for name, row in old.items() if name not in new),
        tuple(row.case for name, row in new.items() if name not in old),
    )


def _by_name(rows: Iterable[Row]) -> dict[Case, Row]:
    """One row a case, without the hashes: images may have changed under their names."""
    return {
        replace(
            row.case, guest_sha256="", rom_sha256=None, initrd_sha256=None, disk_sha256=None
        ): row
        for row in rows
    }


def _differences(one: Row, other: Row) -> Iterator[tuple[str, Any, Any]]:
    if one.outcome != other.outcome:
        yield "outcome", one.outcome.value, other.outcome.value
    if one.counts is not None and other.counts is not None:
        yield from one.counts.differences(other.counts)


def _causes(one: Row, other: Row) -> Iterator[str]:
    for name in ("guest", "rom", "initrd", "disk"):
        if getattr(one.case, f"{name}_sha256") != getattr(other.case, f"{name}_sha256"):
            yield f"another {name} image"
    if one.build.code != other.build.code:
        yield f"code {one.build.label} to {other.build.label}"
