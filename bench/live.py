"""Exits as a run goes on: totals, and what came since the last look, as kvm_stat shows them."""

from dataclasses import dataclass

from vmm.core.event import Reason
from vmm.core.ledger import Ledger

__all__ = ["TOP_SCHEMA", "LiveRow", "Pulse"]

TOP_SCHEMA = "vmirom.top/1"


@dataclass(frozen=True, slots=True)
class LiveRow:
    """One reason: exits so far, their share of all (0 to 100), and exits a second of late."""

    event: str
    total: int
    percent: float
    per_second: float


class Pulse:
    """Turns ledgers, as they stand now and then, into rates. Times are the host's, in seconds."""

    def __init__(self, start: float) -> None:
        self._start = self._last = start
        self._before: dict[Reason, int] = {}

    def rows(self, ledger: Ledger, now: float) -> list[LiveRow]:
        """Every reason so far, the busiest of late first; rates are since the last call."""
        rows = self._rows(ledger, self._before, now - self._last)
        self._before = {reason: row.count for reason, row in ledger.by_reason.items()}
        self._last = now
        return sorted(rows, key=lambda row: (-row.per_second, -row.total, row.event))

    def totals(self, ledger: Ledger, now: float) -> list[LiveRow]:
        """The whole run, most frequent first; rates are its averages."""
        rows = self._rows(ledger, {}, now - self._start)
        return sorted(rows, key=lambda row: (-row.total, row.event))

    @staticmethod
    def _rows(ledger: Ledger, before: dict[Reason, int], seconds: float) -> list[LiveRow]:
        return [
            LiveRow(
                reason.value,
                row.count,
                100 * row.count / ledger.total,
                (row.count - before.get(reason, 0)) / seconds if seconds > 0 else 0.0,
            )
            for reason, row in ledger.by_reason.items()
        ]
