"""Flags across the faults of the instructions that the engine loses them at.

The truth is the engine's own where nothing faults.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
from typing import TYPE_CHECKING, Any

import pytest

from vmm.core import is_compiled
from vmm.core.code.flagkeeper import MOST, FlagKeeper
from vmm.core.event import Reason
from vmm.core.outcome import OutcomeKind
from vmm.engine.calibration import WALKER, address_of
from vmm.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import MakeGuest

TABLE = 0x10D000
RESULTS = 0x300000
ARITHMETIC = 0x8D5

SETTERS = {
    "add": "mov $0x7fffffff, %eax; addl $1, %eax",
    "add without overflow": "mov $0xf, %eax; addb $1, %al",
    "sub": "mov $0x80, %eax; subb $1, %al",
    "cmp": "mov $5, %eax; cmp $7, %eax",
    "cmp, with moves behind": "mov $5, %eax; cmp $7, %eax; mov $3, %ebx; push %ebx; pop %ebx",
    "test": "mov $0x8003, %eax; test %ax, %ax",
    "or": "mov $0x100, %eax; orl $3, %eax",
    "xor of itself": "xor %eax, %eax",
    "adc": "mov $0x7fffffff, %eax; stc; adc $0, %eax",
    "sbb": "mov $0, %eax; stc; sbb $0x7f, %al",
    "inc": "mov $0x7fffffff, %eax; stc; inc %eax",
    "dec": "mov $0x80000000, %eax; clc; dec %eax",
    "neg": "mov $0x80000000, %eax; neg %eax",
    "shl": "mov $0x40000001, %eax; shl $1, %eax",
    "sar by %cl": "mov $1, %ecx; mov $0x80000003, %eax; sar %cl, %eax",
    "rol": "mov $0x80000003, %eax; rol $1, %eax",
    "imul": "mov $0x10000, %eax; imul %eax, %eax",
    "aas": "mov $0x10a, %eax; aas",
    "bt": "mov $8, %eax; bt $3, %eax",
    "sahf": "mov $0x8500, %eax; sahf",
    "another block": "mov $0x7f, %eax; add $1, %al; jmp 1f; 1:",
}
HANDLER = """
caught:	push %eax
	push %ebx
	mov 20(%esp), %eax
	mov %eax, frame
	mov %cr2, %eax
	mov %eax, %ebx
	shr $12, %ebx
	and $0xfffff000, %eax
	or $OPEN, %eax
	mov %eax, TABLE(, %ebx, 4)
	invlpg (%eax)
	pop %ebx
	pop %eax
	add $4, %esp
	iretl
	.balign 4
frame:	.long 0
"""
"""Note the flags of who faults, and map the page."""
CONDITIONS = (
    "o", "no", "b", "ae", "z", "nz", "be", "a",
    "s", "ns", "p", "np", "l", "ge", "le", "g",
)  # fmt: skip
USES = (
    *(f"set{condition}" for condition in CONDITIONS),
    "rclb $1,", "rcrl $1,", "rclw $3,", "rcrl $7,", "rcll %cl,", "rcrb %cl,",
)  # fmt: skip
FAULTS = ("none", "hidden", "the guest's")
UNTOUCHED = {TABLE + 4 * 0x200: struct.pack("<256I", *(4096 * i | 7 for i in range(0x200, 0x300)))}
"""Entries for 1 MiB from 0x200000 on, which nobody has accessed: each first access faults."""


def page(kind: int, use: int) -> int:
    """The page that is accessed; one that nobody has touched has a hidden fault to come."""
    return 0x200000 + 0x1000 * (len(USES) * kind + use)


def combination(setter: str, kind: int, use: int) -> str:
    """Set flags, use them, and note the flags in the frame, the result, and those behind."""
    address, results = page(kind, use), RESULTS + 16 * (len(USES) * kind + use)
    prepare = {
        "none": f"orl $0, {address}",
        "hidden": "",
        "the guest's": f"movl $0, TABLE + {address >> 10}; invlpg {address}",
    }[FAULTS[kind]]
    # What nothing faults at says itself what its flags were.
    note = f"pushf; popl {results}" if FAULTS[kind] == "none" else ""
    return f"""
	{prepare}
	movl $0, frame
	xor %edx, %edx
	jmp 1f
1:	{SETTERS[setter]}
	{note}
	{USES[use]} {address}
	pushf
	popl {results + 4}
	mov {address}, %eax
	mov %eax, {results + 8}
	mov frame, %eax
	{f"mov %eax, {results}" if FAULTS[kind] == "the guest's" else ""}
"""


def program(setter: str) -> str:
    """All uses with all faults."""
    combinations = itertools.product(range(len(FAULTS)), range(len(USES)))
    return f"""
start:	mov $0x200000, %eax
1:	movl $0x81234567, (%eax)
	add $0x1000, %eax
	cmp $0x300000, %eax
	jb 1b
	PAGING
{"".join(combination(setter, kind, use) for kind, use in combinations)}
	FINISH 0
{HANDLER}"""


WALKERS = ["ours", "the engine's"] if is_compiled() else ["the engine's"]


@pytest.mark.parametrize("walker", WALKERS)
@pytest.mark.parametrize("setter", SETTERS)
def test_a_fault_changes_nothing(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine], setter: str, walker: str
) -> None:
    """The engine's walker leaves the block at each fault, ours stays in it at hidden ones."""
    machine = make_machine(tiny_guest(program(setter), handlers={14: "caught"}, pieces=UNTOUCHED))
    if walker != "ours":
        ctypes.c_size_t.from_address(machine.engines[0]._walker).value = address_of(WALKER)
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED, run.outcome
    assert run.ledger.by_reason[Reason.PAGE_FAULT].count == len(USES)
    each = len(USES)
    found = [
        (frame & ARITHMETIC, behind & ARITHMETIC, value)
        for frame, behind, value, _ in struct.iter_unpack(
            "<4I", machine.memory.read(RESULTS, 16 * 3 * each)
        )
    ]
    truth, hidden, guests = found[:each], found[each : 2 * each], found[2 * each :]
    wrong = {
        use: (good, bad) for use, good, bad in zip(USES, truth, guests, strict=True) if good != bad
    }
    assert not wrong
    assert [behind for _, *behind in hidden] == [behind for _, *behind in truth]


# ---- what is looked for


@pytest.fixture(scope="module")
def machine(tiny_guest: MakeGuest, make_machine: Callable[..., Machine]) -> Machine:
    return make_machine(tiny_guest("start:	FINISH 0"))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (["0f9000"], [0]),
        (["0f90c0"], []),
        (["2e660f9500"], [0]),
        (["39d8", "0f9500", "0f9c00", "0f9700"], []),
        (["39d8", "0f9000", "0f9b00"], [2, 5]),
        (["83f805", "c7450005000000", "8d4301", "50", "58", "0fb6c0", "0f9e4500"], []),
        (["83c005", "0f9500"], [3]),
        (["85c0", "0f9500", "0f9300", "0f9800"], []),
        (["85c0", "0f9f00", "0f9600"], [2, 5]),
        (["a801", "0f9500"], []),
        (["f60001", "0f9500"], []),
        (["f610", "0f9500"], [2]),
        (["39d8", "d3e0", "0f9500"], [4]),
        (["39d8", "e80000", "0f9500"], [5]),
        (["d110", "d118", "c01003", "66d31c2400", "d1d0", "d120", "d138"], [0, 2, 4, 7]),
        (["0f90"], []),
        (["d1"], []),
        (["66"], []),
    ],
)
def test_what_loses_flags(machine: Machine, block: list[str], expected: list[int]) -> None:
    code = bytes.fromhex("".join(block))
    keeper = FlagKeeper(machine.vcpu.cpu, bytearray(code) + bytearray(8))
    keeper.begin()
    at = 0
    for instruction in block:
        keeper.look(at, len(code), at)
        at += len(instruction) // 2
    assert keeper.wanted == expected


# ---- more than one run, and more than one place

LOOP = f"""
start:	PAGING
	xor %esi, %esi
again:	mov %esi, %ebx
	shl $12, %ebx
	add $0x200000, %ebx
	movl $0, TABLE + 0x800(, %esi, 4)
	invlpg (%ebx)
	mov $0x7fffffff, %eax
	add %esi, %eax
	setle (%ebx)
	mov (%ebx), %eax
	mov %eax, {RESULTS}(, %esi, 8)
	mov frame, %eax
	mov %eax, {RESULTS + 4}(, %esi, 8)
	inc %esi
	cmp $100, %esi
	jb again
	FINISH 0
{HANDLER}"""


def check_loop(machine: Machine) -> None:
    """Only the first sum is positive, and none is zero; the others overflow to a sign."""
    results = list(struct.iter_unpack("<2I", machine.memory.read(RESULTS, 800)))
    sign, overflow = 0x80, 0x800
    assert [value for value, _ in results] == [0] * 100
    assert [frame & (sign | overflow) for _, frame in results] == [0] + [sign | overflow] * 99


@pytest.mark.parametrize("about", [{}, {"cpus": 2}, {"cpus": 2, "threads": True}])
def test_machines(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine], about: dict[str, Any]
) -> None:
    machine = make_machine(tiny_guest(LOOP, handlers={14: "caught"}), **about)
    assert machine.run().outcome.kind is OutcomeKind.PASSED
    check_loop(machine)


def test_a_resumed_machine_knows_where(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine], tmp_path: Path
) -> None:
    """The block is known to it, so it does not meet it again."""
    machine = make_machine(tiny_guest(LOOP, handlers={14: "caught"}))
    assert machine.proceed(instructions=900).kind is OutcomeKind.LIMIT
    machine.save(tmp_path / "half")
    resumed = Machine.resume(tmp_path / "half")
    assert len(resumed.vcpu.keeper.sites) == 1
    assert resumed.run() == machine.run()
    check_loop(machine)
    check_loop(resumed)


def test_more_than_there_is_room_for(
    tiny_guest: MakeGuest, make_machine: Callable[..., Machine]
) -> None:
    """All are forgotten then, and the run goes on as before."""
    count = MOST + 100
    stores = "\n".join(f"	aas\n	setp {RESULTS + i}\n	jmp {i}f\n{i}:" for i in range(count))
    source = f"""
start:	PAGING
	mov $2, %esi
again:
{stores}
	movl $0, TABLE + 4 * 0x300
	invlpg {RESULTS}
	dec %esi
	jnz again
	FINISH 0
{HANDLER}"""
    machine = make_machine(tiny_guest(source, handlers={14: "caught"}))
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED
    assert 100 <= len(machine.vcpu.keeper.sites) < MOST
    assert run.ledger.by_reason[Reason.PAGE_FAULT].count == 1
