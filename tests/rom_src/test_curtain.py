"""Between any two instructions: an entry that was not told of lies behind the curtain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import unicorn.x86_const as x86

from vmi.doorbell import Feature
from vmi.flags import UpdateFlag
from vmi.queue import HeaderField

if TYPE_CHECKING:
    from conftest import Machine, MachineFactory

RETURN_TO = 0xC0A00000
TABLE = 0xC0400000
PAGE = 0x08048000
HERE = UpdateFlag.PT | UpdateFlag.CURRENT_AS | PAGE
OLD, NEW = 0x00123065, 0x00456067
CURTAIN = 0x0ABC0FE0
GRANTED = Feature.IN_STEP | Feature.CURTAIN
CALLS = {
    "SetPxE, fresh": ("SetPxE", 0, {"eax": NEW, "edx": TABLE, "ecx": HERE}),
    "SetPxE": ("SetPxE", OLD, {"eax": NEW, "edx": TABLE, "ecx": HERE}),
    "UpdatePxE": ("UpdatePxE", NEW, {"eax": TABLE, "edx": HERE}),
}


def lift(made: Machine) -> None:
    """What the monitor does at an exit: it drains, and loads another root."""
    made.attached().drain()
    made.attached().set_word(HeaderField.CURTAIN, CURTAIN)
    made.uc.reg_write(x86.UC_X86_REG_CR3, 0)


def is_down(made: Machine) -> bool:
    return int(made.uc.reg_read(x86.UC_X86_REG_CR3)) == CURTAIN


def begin(made: Machine, name: str) -> None:
    call, old, registers = CALLS[name]
    made.map_linear()
    made.reloc(call)
    lift(made)
    made.write(TABLE, old)
    made.prepare(made.address_of(call), **registers)


def steps(made: Machine) -> int:
    restore = made.snapshot()
    count = 0
    while made.eip != RETURN_TO:
        made.step()
        count += 1
    restore()
    return count


@pytest.mark.parametrize("visibility", ["tlb", "strict"])
@pytest.mark.parametrize("name", CALLS)
def test_what_is_queued_lies_behind_the_curtain(
    machine: MachineFactory, name: str, visibility: str
) -> None:
    made = machine("batching", queue=8, visibility=visibility)
    begin(made, name)
    made.finish()
    assert is_down(made) or not made.attached().pending
    assert (made.attached().word(HeaderField.CURTAIN) == 0) == is_down(made)


@pytest.mark.parametrize("name", CALLS)
def test_a_drain_between_any_two_instructions(machine: MachineFactory, name: str) -> None:
    made = machine("batching", queue=8)
    begin(made, name)
    restore = made.snapshot()
    for boundary in range(1, steps(made)):
        restore()
        made.uc.reg_write(x86.UC_X86_REG_CR3, 0)
        for _ in range(boundary):
            made.step()
        if made.uc.reg_read(x86.UC_X86_REG_EFLAGS) & 0x200 or boundary == 1:
            made.interrupt(lift)
        made.finish()
        assert is_down(made) or not made.attached().pending, boundary


def test_behind_it_a_page_needs_no_invalidation(machine: MachineFactory) -> None:
    made = machine(
        "batching", queue=8, features=Feature.ATTACHED | Feature.SHADOW | Feature.ALONE | GRANTED
    )
    begin(made, "SetPxE")
    made.finish()
    rings = len(made.rings)
    made.call("InvalPage", eax=PAGE)
    assert len(made.rings) == rings
    made.call("InvalPage", eax=TABLE)
    assert len(made.rings) == rings + 1


def test_without_one_nothing_is_loaded(machine: MachineFactory) -> None:
    made = machine("batching", queue=8)
    begin(made, "SetPxE")
    made.attached().set_word(HeaderField.CURTAIN, 0)
    made.finish()
    assert not is_down(made)
