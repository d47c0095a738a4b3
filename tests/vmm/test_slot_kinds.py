"""Memory slots that show the same bytes twice, that are read-only, that log stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

import slotstress
from slotstress import FIXED, WINDOW, pair, with_tables
from vmm.core.errors import BadSlots
from vmm.core.event import Reason
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import policy_named
from vmm.core.slots import MemorySlot
from vmm.machine import Machine

if TYPE_CHECKING:
    from conftest import MakeGuest

PAGE = 4096
PAGINGS = ("", "PAGING")


ALIASED_CODE = f"""
	.set HERE, {WINDOW:#x}
	.set THERE, {WINDOW + 0x100000:#x}
start:
	{{paging}}
	xor %ebx, %ebx
1:	mov %ebx, %eax			# mov $ebx, %eax; ret, twice in the page
	shl $8, %eax
	or $0xb8, %eax
	mov %eax, THERE
	mov %eax, THERE + 0x800
	movl $0xc300, THERE + 4
	movl $0xc300, THERE + 0x804
	mov $HERE, %ecx
	call *%ecx
	cmp %ebx, %eax
	jne 2f
	mov $HERE + 0x800, %ecx
	call *%ecx
	cmp %ebx, %eax
	jne 2f
	inc %ebx
	cmp $200, %ebx
	jne 1b
	FINISH 0
2:	FINISH 1
"""


@pytest.mark.parametrize("paging", PAGINGS)
def test_code_that_was_stored_through_another_alias(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine], paging: str
) -> None:
    machine = make_machine(
        tiny_guest(ALIASED_CODE.format(paging=paging)), backings=(("extra", PAGE),)
    )
    with_tables(machine)
    machine.vm.set_memory(pair(0))
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED
    # What that takes is no exit: the engine's need alone.
    assert run.ledger.total < 30


# The same with two linear addresses of one page, and no alias among the slots.
LINEAR_ALIAS = ALIASED_CODE.format(paging="PAGING")


def test_code_that_was_stored_at_another_linear_address(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    machine = make_machine(tiny_guest(LINEAR_ALIAS))
    with_tables(machine)
    for window in (WINDOW, WINDOW + 0x100000):
        entry = (0x200000 | slotstress.OPEN).to_bytes(4, "little")
        machine.memory.load(slotstress.TABLES + 4 * ((window >> 12) & 1023), entry)
    assert machine.run().outcome.kind is OutcomeKind.PASSED


# A page table that is stored to through an alias of its page is traced there, too.
ALIASED_TABLE = f"""
	.set ALIAS, {WINDOW:#x}
start:
	PAGING
	movl $1, FREE
	movl $2, FREE + 0x1000
	cmpl $1, FREE + 0x2000 - 0x2000
	jne 2f
	movl $FREE + 0x1000 + OPEN, ALIAS + 4 * 0x200	# FREE shows the next page
	invlpg FREE
	cmpl $2, FREE
	jne 2f
	mov ALIAS + 4 * 0x200, %eax
	cmp TABLE + 4 * 0x200, %eax
	jne 2f
	FINISH 0
2:	FINISH 1
"""


def test_a_page_table_is_traced_through_its_aliases(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    machine = make_machine(tiny_guest(ALIASED_TABLE))
    with_tables(machine)
    machine.vm.set_memory((*FIXED, MemorySlot(WINDOW, PAGE, "ram", 0x10D000)))
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED
    writes = [place for place in run.ledger.places if place.reason is Reason.PTE_WRITE]
    assert [(place.detail, place.count) for place in writes] == [(f"table {WINDOW:#010x}", 1)]


# ---- read-only slots

READ_ONLY = f"""
	.set ROM, {WINDOW:#x}
start:
	mov ROM, %eax
	movl $0, ROM
	addl $1, ROM
	cmp ROM, %eax
	jne 2f
	mov $ROM + 0x10, %edi
	mov $3, %ecx
	rep stosl
	movl $5, ROM + 0x100000		# the same bytes, writable
	cmpl $5, ROM
	jne 2f
	FINISH 0
2:	FINISH 1
"""


def test_stores_to_a_read_only_slot_are_swallowed(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    machine = make_machine(tiny_guest(READ_ONLY), backings=(("extra", PAGE),))
    machine.vm.set_memory(
        (
            *FIXED,
            MemorySlot(WINDOW, PAGE, "extra", read_only=True),
            MemorySlot(WINDOW + 0x100000, PAGE, "extra"),
        )
    )
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED
    assert run.ledger.by_reason[Reason.MMIO].heavy == 5
    assert machine.ram[-PAGE:] == (5).to_bytes(4, "little") + bytes(PAGE - 4)


# ---- dirty pages

STORES = f"""
	.set LOGGED, {WINDOW:#x}
start:
	{{paging}}
	mov $0x5f0, %edx
	outl %eax, (%dx)
	jmp 1f
1:	mov LOGGED + 0x5000, %eax	# a load is nothing
	movl $1, LOGGED
	movl $1, LOGGED + 4
	movl $1, LOGGED + 0x3000
	mov $LOGGED + 0x1ff8, %edi
	mov $8, %ecx
	rep stosl			# pages 1 and 2
	outl %eax, (%dx)
	jmp 3f
3:	movl $1, LOGGED + 0x3000
	movl $1, LOGGED + 0x3004
	outl %eax, (%dx)
	jmp 4f
4:	FINISH 0
"""


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("policy", ["svm-shadow", "npt"])
def test_the_first_store_to_a_clean_page_is_one_light_exit(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine], paging: str, policy: str
) -> None:
    bell = slotstress.Plug(slotstress.Bell, name="bell")
    machine = make_machine(
        tiny_guest(STORES.format(paging=paging)),
        backings=(("extra", 8 * PAGE),),
        devices=(bell,),
        policy=policy_named(policy),
    )
    with_tables(machine)
    logged = MemorySlot(WINDOW, 8 * PAGE, "extra", logging=True)
    machine.vm.set_memory((*FIXED, logged))
    seen: list[bytes] = []
    exits: list[int] = []

    def take() -> None:
        seen.append(machine.vm.dirty_log(logged))
        count = machine.ledger().by_reason.get(Reason.DIRTY_LOG)
        exits.append(0 if count is None else count.count)
        assert count is None or not count.heavy

    device = machine.devices["bell"]
    assert isinstance(device, slotstress.Bell)
    device.rung = lambda: machine.vm.post(take)
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED
    assert seen == [b"\0", b"\x0f", b"\x08"]
    # Where the page was not mapped yet, its store faults for that.
    assert exits[2] - exits[1] == 1


def test_a_log_of_what_is_not_logged(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    machine = make_machine(tiny_guest("start: hlt"))
    with pytest.raises(BadSlots, match="slot 0x0-0x9ffff"):
        machine.vm.dirty_log(FIXED[0])


def test_what_the_monitor_stores_is_logged(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    """The frame of an exception, and accessed and dirty bits in the guest's tables."""
    machine = make_machine(
        tiny_guest(
            """
start:	PAGING
	mov $FREE + 0x2000, %esp
	int $0x40
handler:
	movl $1, FREE + 0x5000
	FINISH 0
""",
            handlers={0x40: "handler"},
        )
    )
    table = 0x10D000
    clean = (0x205000 | 7).to_bytes(4, "little")
    machine.memory.load(table + 4 * 0x205, clean)
    logged = (
        FIXED[0],
        MemorySlot(0xC0000, slotstress.MEMORY - 0xC0000, "ram", 0xC0000, logging=True),
    )
    machine.vm.set_memory(logged)
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED
    bitmap = int.from_bytes(machine.vm.dirty_log(logged[1]), "little")
    pages = {0xC0 + i for i in range(bitmap.bit_length()) if bitmap >> i & 1}
    assert {0x201, 0x205, table >> 12} <= pages
    assert not pages & {0x200, 0x300}
