"""Calls of a batching ROM's queue, on a bare machine whose linear map the ROM knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmi.doorbell import Doorbell, Feature
from vmi.flags import UpdateFlag
from vmi.queue import FAULT_PAGE_VALID, HeaderField, RecordKind

if TYPE_CHECKING:
    from conftest import Machine, MachineFactory

LINEAR_BASE = 0xC0000000
TABLE = 0xC0400000
"""A page table of the guest's, linear address."""
PRESENT = 0x00123067
OTHER = 0x00456067
PT = UpdateFlag.PT
DEFER = UpdateFlag.PT | UpdateFlag.DEFER
PAGE = 0x08048000
HERE = PT | UpdateFlag.CURRENT_AS | PAGE
ALONE = Feature.ATTACHED | Feature.SHADOW | Feature.IN_STEP | Feature.ALONE


def entry_record(va: int) -> int:
    return va - LINEAR_BASE | RecordKind.ENTRY


def rings(made: Machine) -> list[Doorbell]:
    """What was rung, apart from what every guest rings once."""
    once = (Doorbell.ATTACH, Doorbell.ADOPT_TABLES, Doorbell.FIND_HOME)
    return [ring.function for ring in made.rings if ring.function not in once]


def ready(machine: MachineFactory, visibility: str, features: Feature) -> Machine:
    """Attached, with the linear map known, queue of 8."""
    attached = machine("batching", visibility=visibility, features=features)
    attached.map_linear()
    return attached


def set_pxe(made: Machine, value: int, va: int = TABLE, flags: int = PT) -> None:
    made.call("SetPxE", eax=value, edx=va, ecx=flags)
    assert made.read(va) == value, "the guest reads its tables: the entry is stored at once"


def publish(made: Machine, page: int = PAGE) -> None:
    made.attached().set_word(HeaderField.FAULT_PAGE, page | FAULT_PAGE_VALID)
