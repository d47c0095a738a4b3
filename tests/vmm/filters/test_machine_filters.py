"""Filters under a running guest: the same guest, the same time, lighter exits."""

from __future__ import annotations

from rombuilder.guest import build_guest
from vmm.core.event import Reason
from vmm.filters.attach import load_filter
from vmm.machine import Machine, MachineDescription, Run


def run(*names: str) -> Run:
    return Machine(
        MachineDescription(
            guest=build_guest("calibrate").data,
            command_line="rounds=1 steps=10",
            filters=tuple(load_filter(name) for name in names),
        )
    ).run()


def test_polling_the_timer_becomes_light() -> None:
    plain, filtered = run(), run("pit")
    assert plain.outcome.ok
    # The guest cannot tell: it takes the same instructions and ends with the same memory.
    assert (filtered.instructions, filtered.virtual_ns) == (plain.instructions, plain.virtual_ns)
    assert (filtered.console, filtered.memory_crc) == (plain.console, plain.memory_crc)
    before, after = plain.ledger.by_reason[Reason.IO], filtered.ledger.by_reason[Reason.IO]
    assert after.count == before.count
    polls = filtered.filters[0].answered
    assert before.heavy - after.heavy == polls == after.light
    assert polls > 1000
    assert filtered.filters[0].passed < polls * 0.05
    assert not plain.filters


def test_counts_repeat() -> None:
    first, second = run("pit", "lsr"), run("pit", "lsr")
    assert first == second
