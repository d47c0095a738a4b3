"""The rows of a result file by what they show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.record import Counts, Row
from vmi.queue import DEFAULT_CAPACITY
from vmm.core.policy import POLICIES

__all__ = ["Trio", "one_build", "trios"]


@dataclass(frozen=True, slots=True)
class Trio:
    """One guest under one policy: without a ROM and with both flavours.

    `queue` is the batching ROM's capacity, in records.
    """

    guest: str
    command_line: str
    policy: str
    none: Counts
    identity: Counts | None
    batching: Counts | None
    queue: int | None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.guest} {self.command_line}".strip()

    def saved(self, other: Counts | None) -> int | None:
        """Exits that a ROM saved; negative if it added some."""
        return None if other is None else self.none.exits - other.exits

    def percent(self, other: Counts | None) -> float | None:
        """The same as a share of the exits without a ROM, in percent."""
        if other is None or not self.none.exits:
            return None
        return 100 * (self.none.exits - other.exits) / self.none.exits


def one_build(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The counted rows of the newest code, and how many others there are."""
    counted = [row for row in rows if row.counts is not None]
    if not counted:
        return [], 0
    newest = max(counted, key=lambda row: row.started_at).build.code
    kept = [row for row in counted if row.build.code == newest]
    return kept, len(counted) - len(kept)


def trios(rows: Iterable[Row]) -> list[Trio]:
    """Guests with their ROMs, the batching one at its default capacity or the nearest above.

    In the order of the policies, then of the names. A guest without a run without a ROM
    has nothing to be compared with and is left out.
    """
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        case = row.case
        key = (case.policy, case.guest, case.command_line, case.variant)
        groups.setdefault(key, []).append(row)
    found = []
    for (policy, guest, command_line, _variant), members in groups.items():
        by_rom = {row.case.rom: row.counts for row in members if row.case.rom != "batching"}
        none = by_rom.get("none")
        if none is None:
            continue
        batching, queue = _batching(members)
        found.append(
            Trio(guest, command_line, policy, none, by_rom.get("identity"), batching, queue)
        )
    order = {policy.name: i for i, policy in enumerate(POLICIES)}
    return sorted(found, key=lambda t: (order.get(t.policy, len(order)), t.guest, t.command_line))


def _batching(members: Iterable[Row]) -> tuple[Counts | None, int | None]:
    sizes = {
        row.case.queue: row.counts
        for row in members
        if row.case.rom == "batching"
        and row.case.queue is not None
        and row.case.visibility != "strict"
    }
    if not sizes:
        return None, None
    queue = min(sizes, key=lambda size: (size < DEFAULT_CAPACITY, abs(size - DEFAULT_CAPACITY)))
    return sizes[queue], queue
