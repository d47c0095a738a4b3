"""Recording exits one by one changes no count, and misses none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from bench.inputs import load_guest, load_rom
from rombuilder.rom import Flavour, build_rom
from vmm.core.event import REASON_OF, Event, Reason
from vmm.core.policy import policy_named
from vmm.machine import Machine, MachineDescription, Run
from vmm.recording import ExitRecord

RING = 1 << 13
"""Records in the core's ring."""


class Everything:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[ExitRecord] = []
        self.pieces: list[int] = []

    def take(self, cpu: int, exits: Sequence[ExitRecord]) -> None:
        assert cpu == 0
        self.rows += exits
        self.pieces.append(len(exits))


def both(description: MachineDescription, *, timing: bool = False) -> tuple[Run, Run, Everything]:
    """A run without recording, one with it, and what was recorded."""
    plain = Machine(description).run()
    machine, seen = Machine(description), Everything()
    machine.record(seen, timing=timing)
    return plain, machine.run(), seen


@pytest.mark.parametrize("policy", ["svm-shadow", "vtx-shadow", "npt"])
@pytest.mark.parametrize("rom", ["none", "batching"])
@pytest.mark.parametrize("guest", ["pagefault", "ctxswitch"])
def test_every_exit_once_and_nothing_else_changes(guest: str, rom: str, policy: str) -> None:
    plain, recorded, seen = both(
        MachineDescription(
            load_guest(guest).image,
            rom=load_rom(rom).image,
            command_line="rounds=4 pages=32",
            policy=policy_named(policy),
        )
    )
    assert recorded == plain
    counts: dict[Reason, list[int]] = {}
    for row in seen.rows:
        counts.setdefault(REASON_OF[Event(row[3])], [0, 0])[row[4]] += 1
    assert counts == {
        reason: [found.light, found.heavy] for reason, found in plain.ledger.by_reason.items()
    }


def test_time_only_goes_forward_and_places_are_those_of_the_ledger() -> None:
    plain, _, seen = both(
        MachineDescription(load_guest("forkstorm").image, rom=load_rom("batching").image)
    )
    end = 0
    for when, charged, host, *_ in seen.rows:
        assert when >= end
        assert host == 0
        end = when + charged
    assert end <= plain.virtual_ns
    places = Counter((row[3], row[5], row[6]) for row in seen.rows)
    assert sorted(places.values(), reverse=True) == [place.count for place in plain.ledger.places]
    assert {row[6] for row in seen.rows} == {place.eip for place in plain.ledger.places}


def test_what_was_queued_is_drained() -> None:
    plain, _, seen = both(
        MachineDescription(load_guest("forkstorm").image, rom=load_rom("batching").image)
    )
    drained = [row[9] for row in seen.rows]
    assert sum(drained) == plain.paravirt.notices
    assert max(row[8] for row in seen.rows) == plain.paravirt.largest_batch
    # Nothing leaves the queue that was not in it, but for the record that found it full.
    assert all(row[8] + (row[3] == Event.HYPERCALL) >= row[9] for row in seen.rows)


def test_a_fault_has_its_address() -> None:
    _, _, seen = both(MachineDescription(load_guest("pagefault").image))
    faults = [row for row in seen.rows if row[3] == Event.PAGE_FAULT]
    assert faults
    assert all(row[7] for row in faults)
    stores = [row for row in seen.rows if row[3] == Event.PTE_WRITE]
    # A store into a table, seen by its virtual address and by its physical page.
    assert all(row[7] & 0xFFC == row[7] & 0xFFF for row in stores)
    assert all(row[5] & 0xFFF == 0 for row in stores)
    assert all(row[7] == 0 for row in seen.rows if row[3] == Event.IO)


def test_the_ring_is_emptied_when_it_is_full() -> None:
    plain, _, seen = both(MachineDescription(load_guest("forkstorm").image))
    assert plain.ledger.total > 3 * RING
    assert len(seen.pieces) >= 4
    assert max(seen.pieces) <= RING
    assert len(seen.rows) == plain.ledger.total


def test_host_times_are_there_if_asked_for() -> None:
    plain, recorded, seen = both(MachineDescription(load_guest("pagefault").image), timing=True)
    assert recorded == plain
    assert all(row[2] > 0 for row in seen.rows)


def test_an_exit_that_ends_the_run_is_recorded() -> None:
    """A guest that is stopped in the middle of an exit."""
    rom = build_rom(Flavour.BATCHING, defines={"OMIT_FLUSH": 1}).data
    plain, recorded, seen = both(
        MachineDescription(load_guest("forkstorm").image, rom=rom, max_instructions=20_000_000)
    )
    assert not plain.outcome.ok
    assert recorded == plain
    assert len(seen.rows) == plain.ledger.total
