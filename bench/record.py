"""What is kept of a run: what was run, by what, what it counted, and how long it took."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from vmi.doorbell import Doorbell
from vmm.core.event import Reason
from vmm.core.ledger import Place, ReasonCount
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.result import Run

__all__ = ["FORCED", "Build", "Case", "Counts", "Row", "row_key"]

FORCED = frozenset(
    {
        Doorbell.FLUSH,
        Doorbell.INVALIDATE_PAGE,
        Doorbell.FLUSH_TLB,
        Doorbell.SET_CR3,
        Doorbell.UPDATE_ENTRY,
    }
)
"""Rings at a point where the interface demands that the monitor sees what was queued.
`QUEUE_FULL` is none of them: that is the queue's size; `ATTACH` and `ADOPT_TABLES`
happen once."""


@dataclass(frozen=True, slots=True)
class Case:
    """What was run. Equal cases give equal counts with equal code.

    `rom` is the flavour, `none`, or a file's name; `queue` (records), `calls` and
    `visibility` are none where they mean nothing or are not known. `memory` is in bytes.
    `variant` names what the machine has beyond the ordinary, `plain` nothing.
    """

    suite: str
    guest: str
    guest_sha256: str
    rom: str
    policy: str
    memory: int
    engine: str = "unicorn"
    command_line: str = ""
    initrd_sha256: str | None = None
    disk_sha256: str | None = None
    rom_sha256: str | None = None
    queue: int | None = None
    calls: str | None = None
    visibility: str | None = None
    cpus: int = 1
    variant: str = "plain"

    @property
    def label(self) -> str:
        """For people: what tells the case from its neighbours."""
        parts = [self.guest, *([self.command_line] if self.command_line else [])]
        parts.append("no ROM" if self.rom == "none" else f"ROM {self.rom}")
        if self.queue is not None:
            parts.append(f"queue {self.queue}")
        if self.visibility == "strict":
            parts.append("strict")
        parts.append(self.policy)
        if self.cpus > 1:
            parts.append(f"{self.cpus} CPUs")
        if self.variant != "plain":
            parts.append(self.variant)
        if self.engine != "unicorn":
            parts.append(self.engine)
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Build:
    """What ran it. Counts may differ between two values of `code`, and between no others.

    `code` is the SHA-256 over the sources of `vmi` and `vmm` and the engine's version;
    `core` says whether the hot path was compiled. `host` describes the machine, for
    whoever reads the times.
    """

    version: str
    code: str
    core: str
    host: Mapping[str, str] = field(hash=False)

    @property
    def label(self) -> str:
        """For people: the version and the start of the code's hash."""
        return f"{self.version}+{self.code[:10]}"


@dataclass(frozen=True, slots=True)
class Counts:
    """All that a run counted: exact, and equal in every repetition.

    `forced` counts the points where the interface demanded visibility, each of them one
    exit, `queue_full` the exits for want of room in the queue; both are none where the
    ledger had no room for the places that tell. `virtual_ns` is virtual time.
    `places` are those that the suite asked for.
    """

    instructions: int
    rom_instructions: int
    virtual_ns: int
    by_reason: Mapping[Reason, ReasonCount] = field(hash=False)
    updates: int = 0
    notices: int = 0
    flushes: int = 0
    largest_batch: int = 0
    hypercalls: int = 0
    forced: int | None = 0
    queue_full: int | None = 0
    places: tuple[Place, ...] = ()

    @classmethod
    def of(cls, run: Run, places: int = 0) -> "Counts":
        """The counts of a run, with its `places` most frequent places."""
        rings = _rings(run)
        return cls(
            instructions=run.instructions,
            rom_instructions=run.rom_instructions,
            virtual_ns=run.virtual_ns,
            by_reason=dict(run.ledger.by_reason),
            updates=run.paravirt.updates,
            notices=run.paravirt.notices,
            flushes=run.paravirt.flushes,
            largest_batch=run.paravirt.largest_batch,
            hypercalls=run.paravirt.hypercalls,
            forced=None if rings is None else sum(rings.get(f.name, 0) for f in FORCED),
            queue_full=None if rings is None else rings.get(Doorbell.QUEUE_FULL.name, 0),
            places=tuple(run.ledger.places[:places]),
        )

    @property
    def exits(self) -> int:
        """All exits."""
        return sum(row.count for row in self.by_reason.values())

    @property
    def light(self) -> int:
        """Exits served in the core."""
        return sum(row.light for row in self.by_reason.values())

    @property
    def heavy(self) -> int:
        """Exits served by a device."""
        return sum(row.heavy for row in self.by_reason.values())

    def figures(self) -> dict[str, int | None]:
        """Every count by name, places apart; reasons as `exits_pte_write`."""
        scalars = [
            f.name for f in dataclasses.fields(self) if f.name not in {"by_reason", "places"}
        ]
        return {
            "exits": self.exits,
            "exits_light": self.light,
            "exits_heavy": self.heavy,
            **{
                f"exits_{reason.value}": self.by_reason.get(reason, ReasonCount()).count
                for reason in Reason
            },
            **{name: getattr(self, name) for name in scalars},
        }

    def differences(self, other: "Counts") -> Iterator[tuple[str, Any, Any]]:
        """(name, here, there) of what is not equal."""
        mine, others = self.figures(), other.figures()
        for name, value in mine.items():
            if value != others[name]:
                yield name, value, others[name]
        for reason in Reason:
            a = self.by_reason.get(reason, ReasonCount())
            b = other.by_reason.get(reason, ReasonCount())
            if a.count == b.count and a != b:
                yield f"exits_{reason.value} (heavy)", a.heavy, b.heavy
        if self.places and other.places and self.places != other.places:
            yield "places", len(self.places), len(other.places)


def _rings(run: Run) -> dict[str, int] | None:
    """Rings of the doorbell by function; none when not every one has its place."""
    rings: dict[str, int] = {}
    for place in run.ledger.places:
        if place.reason is Reason.HYPERCALL:
            rings[place.detail] = rings.get(place.detail, 0) + place.count
    return rings if sum(rings.values()) == run.paravirt.hypercalls else None


@dataclass(frozen=True, slots=True)
class Row:
    """One run in a result file.

    `counts` is none where the program that ran the guest does not count exits.
    `cpu_seconds` and `wall_seconds` are of the run alone, without the making of the machine.
    `measures` are a suite's own figures by name.
    """

    case: Case
    build: Build
    repetition: int
    outcome: OutcomeKind
    detail: str
    counts: Counts | None
    cpu_seconds: float
    wall_seconds: float
    started_at: datetime
    measures: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        """Names the row in a result file: no two rows of one file have the same."""
        return row_key(self.case, self.build, self.repetition)

    def record(self) -> dict[str, Any]:
        """The row flat: names as in docs/reference/results.md, `host` an object.

        Exits by reason stand under `exits_pte_write` and so on, measures under their names.
        What was not counted is missing.
        """
        return {
            **dataclasses.asdict(self.case),
            "repetition": self.repetition,
            "version": self.build.version,
            "code": self.build.code,
            "core": self.build.core,
            "host": dict(self.build.host),
            "outcome": self.outcome.value,
            "detail": self.detail,
            "counted": int(self.counts is not None),
            **({} if self.counts is None else self.counts.figures()),
            "cpu_seconds": self.cpu_seconds,
            "wall_seconds": self.wall_seconds,
            "started_at": self.started_at.isoformat(),
            **self.measures,
        }

    @property
    def ok(self) -> bool:
        """Did the guest end as it wanted to?"""
        return Outcome(self.outcome).ok


def row_key(case: Case, build: Build, repetition: int) -> str:
    """The SHA-256 of all that says whether a run was done already; hosts do not matter."""
    identity = [dataclasses.asdict(case), build.version, build.code, build.core, repetition]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
