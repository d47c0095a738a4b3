"""The latest exit, read by another process while it is written."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import pytest

from vmm.core.counters import Counters
from vmm.core.event import Event, Reason, Weight
from vmm.core.latestexit import ExitRecords, LatestExit

ENOUGH = 1000
"""Records that the other process is to see: with a reader that does not look at the sequence
number one in six of them is torn."""


def test_it_tells_what_was_counted() -> None:
    records, counters = ExitRecords(2), Counters()
    counters.share(records.of(1))
    assert records.latest(1) is None
    counters.count(Event.HLT, 0, 0x1234)
    counters.count_heavy(Event.IO, 0x20060, 0xC0001000)
    latest = records.latest(1)
    assert latest == LatestExit(2, Event.IO, 0x20060, 0xC0001000, Weight.HEAVY)
    assert latest is not None
    assert latest.reason is Reason.IO
    counters.count(Event.CPUID, 0, 5)
    assert records.latest(1) == LatestExit(3, Event.CPUID, 0, 5, Weight.LIGHT)
    assert records.latest(0) is None
    with pytest.raises(IndexError, match="virtual CPU 2: expected 0 to 1"):
        records.latest(2)


def test_a_record_that_is_written_is_not_read() -> None:
    """One that stays so for good would be waited for: here its end comes in between."""
    records = ExitRecords(1)
    words = records.of(0)
    Event.HLT.value  # noqa: B018 - the enumeration must be made before the words are watched

    class Words:
        """Stands in for the memory: the writer is in the middle for the first three looks."""

        def __init__(self) -> None:
            self.looks = 0

        def __getitem__(self, index: int) -> int:
            self.looks += 1
            return 1 if self.looks <= 3 else words[index]

        def tolist(self) -> list[int]:
            return words.tolist()

    counters = Counters()
    counters.share(words)
    counters.count(Event.HLT, 7, 7)
    stand_in = Words()
    records.of = lambda _cpu: stand_in  # type: ignore[assignment,method-assign,return-value]
    assert records.latest(0) == LatestExit(1, Event.HLT, 7, 7, Weight.LIGHT)
    assert stand_in.looks > 3


def _watch(records: ExitRecords, answer: Any) -> None:
    """Read until enough records were seen; tell how many did not agree with themselves."""
    seen = before = torn = 0
    while seen < ENOUGH:
        latest = records.latest(0)
        if latest is None:
            continue
        torn += latest.qualifier != latest.address or latest.number != latest.qualifier
        torn += latest.number < before
        seen += latest.number != before
        before = latest.number
    answer.send(torn)


def test_another_process_never_reads_half_a_record() -> None:
    context = multiprocessing.get_context("fork")
    records, counters = ExitRecords(1), Counters()
    counters.share(records.of(0))
    receive, send = context.Pipe(duplex=False)
    watcher = context.Process(target=_watch, args=(records, send), daemon=True)
    watcher.start()
    end = time.monotonic() + 60
    number = 0
    while not receive.poll(0) and time.monotonic() < end:
        for _ in range(1000):
            number += 1
            counters.count(Event.HLT, number, number)
    assert receive.poll(0), "the watcher saw too little"
    assert receive.recv() == 0
    watcher.join()
