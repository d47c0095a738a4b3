from collections.abc import Callable

import pytest

from rombuilder.guest import build_guest
from rombuilder.rom import Flavour, build_rom
from vmm.core.event import Reason
from vmm.core.policy import policy_named
from vmm.machine import Machine, MachineDescription, Run

UNSYNC = policy_named("svm-unsync")
GUESTS = ("forkstorm", "mmapstorm", "pagefault", "ctxswitch")

# The first store to the table lets it stray; the second goes unseen until a flush.
STRAY = """
start:	PAGING
	mov 0x200000, %eax
	mov 0x201000, %eax
	movl $0, TABLE + 4 * 0x201
	movl $0, TABLE + 4 * 0x200
	mov 0x200000, %eax			# as a TLB would, the shadow still has it
	{flush}
	mov 0x200000, %eax
	FINISH 2
fault:
	cmpl $0, flushed
	je 1f
	FINISH 0
1:	FINISH 3
	.data
flushed: .long 0
"""


@pytest.mark.parametrize(
    "flush",
    [
        "movl $1, flushed; invlpg 0x200000",
        "movl $1, flushed; mov %cr3, %eax; mov %eax, %cr3",
        "movl $1, flushed; mov %cr4, %eax; xor $0x80, %eax; mov %eax, %cr4",
    ],
    ids=["invlpg", "cr3", "cr4"],
)
def test_a_table_strays_until_the_next_flush(run_guest: Callable[..., Run], flush: str) -> None:
    run = run_guest(STRAY.format(flush=flush), handlers={14: "fault"}, policy=UNSYNC)
    assert run.ledger.by_reason[Reason.PTE_WRITE].count == 1


def test_without_a_flush_nothing_brings_it_back(run_guest: Callable[..., Run]) -> None:
    run = run_guest(
        STRAY.format(flush="movl $1, flushed"), handlers={14: "fault"}, policy=UNSYNC, passes=False
    )
    assert "check 2" in run.outcome.detail


def test_a_table_is_traced_again_after_a_flush(run_guest: Callable[..., Run]) -> None:
    source = """
start:	PAGING
	mov $5, %ecx
1:	movl $0, TABLE + 4 * 0x201
	movl $0, TABLE + 4 * 0x202
	mov %cr3, %eax
	mov %eax, %cr3
	loop 1b
	FINISH 0
"""
    run = run_guest(source, policy=UNSYNC)
    assert run.ledger.by_reason[Reason.PTE_WRITE].count == 5


@pytest.mark.parametrize("rom", [None, *Flavour])
@pytest.mark.parametrize("name", GUESTS)
def test_guests_pass_under_the_checker(name: str, rom: Flavour | None) -> None:
    description = MachineDescription(
        build_guest(name).data,
        rom=None if rom is None else build_rom(rom).data,
        command_line="rounds=2",
        policy=UNSYNC,
        check_shadow=True,
    )
    run = Machine(description).run()
    assert run.outcome.ok, run.console
    assert run.shadow_entries_checked


def test_the_baseline_is_stronger() -> None:
    image = build_guest("forkstorm").data
    every, lazy = (
        Machine(MachineDescription(image, command_line="rounds=5", policy=policy)).run()
        for policy in (policy_named("svm-shadow"), UNSYNC)
    )
    assert lazy.outcome.ok
    assert lazy.ledger.total < every.ledger.total / 4
    assert lazy.console == every.console


def test_a_rom_that_drops_its_news_is_found_out() -> None:
    rom = build_rom(Flavour.BATCHING, defines={"OMIT_FLUSH": 1}).data
    run = Machine(MachineDescription(build_guest("forkstorm").data, rom=rom, policy=UNSYNC)).run()
    assert not run.outcome.ok
