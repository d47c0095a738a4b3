"""Exits against the queue's capacity, and the least that any capacity can reach."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from bench.record import Counts, Row

__all__ = ["QueueCurve", "queue_curves"]


@dataclass(frozen=True, slots=True)
class QueueCurve:
    """One guest under one policy: counts by capacity, smallest first, and the baselines.

    `none` are the exits without a ROM, `identity` those with the identity ROM; none
    where that was not run.
    """

    guest: str
    command_line: str
    policy: str
    visibility: str
    points: tuple[tuple[int, Counts], ...]
    none: int | None = None
    identity: int | None = None

    @property
    def limit(self) -> int | None:
        """The exits that remain when the queue is never full, if that was reached.

        Then each ring of the doorbell is at a point where the interface demands visibility
        (`Counts.forced`), and no capacity has fewer.
        """
        exits = [counts.exits for _, counts in self.points if counts.queue_full == 0]
        return min(exits) if exits else None

    def enough(self, share: float = 0.01) -> int | None:
        """The least capacity whose exits exceed the limit by at most `share` of it.

        A larger queue saves next to nothing. None where the limit was not reached.
        """
        limit = self.limit
        if limit is None:
            return None
        return next(queue for queue, counts in self.points if counts.exits <= limit * (1 + share))


def queue_curves(rows: Iterable[Row]) -> list[QueueCurve]:
    """The curves in the rows of the suite `batching`; repetitions count once."""
    counted = [row for row in rows if row.counts is not None]

    def group(row: Row) -> tuple[str, str, str, str, str]:
        case = row.case
        return row.build.code, case.guest, case.guest_sha256, case.policy, case.command_line

    curves = []
    for (_, guest, _, policy, command_line), members in groupby(
        sorted(counted, key=group), key=group
    ):
        found = {row.case: row.counts for row in members if row.counts is not None}
        baselines = {case.rom: counts.exits for case, counts in found.items() if case.queue is None}
        for visibility in sorted({case.visibility for case in found if case.visibility}):
            points = sorted(
                (
                    (case.queue, counts)
                    for case, counts in found.items()
                    if case.queue is not None and case.visibility == visibility
                ),
                key=lambda point: point[0],
            )
            curves.append(
                QueueCurve(
                    guest,
                    command_line,
                    policy,
                    visibility,
                    tuple(points),
                    baselines.get("none"),
                    baselines.get("identity"),
                )
            )
    return curves
