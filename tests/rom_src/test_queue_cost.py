"""What a queued update costs, in instructions of the ROM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from queuecalls import ALONE, DEFER, HERE, OTHER, PRESENT, PT, TABLE, publish, rings
from vmi.doorbell import Feature
from vmi.flags import PageFlag, UpdateFlag

if TYPE_CHECKING:
    from conftest import Machine, MachineFactory

MOST_INSTRUCTIONS = 21


def counts(made: Machine) -> dict[str, int]:
    """Instructions of updates that are queued and nothing else, by what they are."""
    made.map_linear()
    set_address, update = made.address_of("SetPxE"), made.address_of("UpdatePxE")
    found = {"new": made.count(set_address, eax=PRESENT, edx=TABLE, ecx=PT)}
    found["changed, DEFER"] = made.count(set_address, eax=OTHER, edx=TABLE, ecx=DEFER)
    found["stored, DEFER"] = made.count(update, eax=TABLE, edx=DEFER)
    publish(made)
    found["fault page changed"] = made.count(
        set_address, eax=OTHER, edx=TABLE, ecx=HERE | UpdateFlag.DEFER
    )
    found["fault page stored"] = made.count(update, eax=TABLE, edx=HERE | UpdateFlag.DEFER)
    found["allocate"] = made.count(
        made.address_of("AllocatePage"), (0, 0), eax=5, edx=PageFlag.PT, ecx=0
    )
    found["release"] = made.count(made.address_of("ReleasePage"), eax=5, edx=PageFlag.PT)
    assert rings(made) == []
    assert len(made.attached().pending) == len(found)
    return found


def test_instructions_of_a_queued_update(machine: MachineFactory) -> None:
    found = counts(machine("batching", queue=128))
    assert found == {
        "new": 17,
        "changed, DEFER": 21,
        "stored, DEFER": 20,
        "fault page changed": 20,
        "fault page stored": 19,
        "allocate": 13,
        "release": 14,
    }
    assert max(found.values()) <= MOST_INSTRUCTIONS


def test_instructions_of_a_queued_update_by_the_letter(machine: MachineFactory) -> None:
    found = counts(machine("batching", queue=128, visibility="strict"))
    assert found == {
        "new": 17,
        "changed, DEFER": 20,
        "stored, DEFER": 19,
        "fault page changed": 20,
        "fault page stored": 19,
        "allocate": 13,
        "release": 14,
    }
    assert max(found.values()) <= MOST_INSTRUCTIONS


def test_instructions_where_there_are_several_processors(machine: MachineFactory) -> None:
    made = machine("batching", queue=128, features=ALONE & ~Feature.ALONE)
    first = {
        "new": 28,
        "changed, DEFER": 34,
        "stored, DEFER": 33,
        "fault page changed": 31,
        "fault page stored": 30,
        "allocate": 26,
        "release": 29,
    }
    made.call("GetCR3")
    assert counts(made) == first


@pytest.mark.parametrize("call", ["InvalPage", "FlushTLB"])
def test_instructions_of_an_invalidation_that_needs_none(made: Machine, call: str) -> None:
    assert made.count(made.address_of(call), eax=1) == 6
