"""Faults in vmi_init and get_reloc, and in what the answers say together."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from rombuilder.conformance.findings import Finding
from vmi.relocation import RelocationKind

Plant = Callable[..., bytes]
Check = Callable[..., list[Finding]]

# CALL_REL where the image is on 2 KiB only, NONE elsewhere.
MOVES = """
    cmp $17, %eax
    jne 1f
    call 2f
2:  pop %edx
    mov %edx, %eax
    shr $11, %edx
    and $1, %edx
    ret
1:
"""

NONE, CALL, JUMP, NOP = RelocationKind


@pytest.mark.parametrize(
    ("call", "kind", "code", "text"),
    [
        ("IRET", NONE, "must-patch", "IRET is answered NONE"),
        ("IRET", CALL, "must-patch", "IRET is answered CALL_REL"),
        ("SYSEXIT", NOP, "must-patch", "SYSEXIT is answered NOP"),
        ("SetCR3", JUMP, "jump", "SetCR3 returns and is answered JUMP_REL"),
        ("SetCR3", 9, "relocation-kind", "SetCR3 is no patch: get_reloc answered kind 9"),
        ("72", CALL, "unknown-call", "call 72 does not exist and is answered CALL_REL"),
        ("127", NOP, "unknown-call", "call 127 does not exist and is answered NOP"),
        ("GetWallclockTime", CALL, "timer-group", "offers GetWallclockTime but not GetCycleFre"),
    ],
)
def test_kinds(plant: Plant, check: Check, call: str, kind: int, code: str, text: str) -> None:
    (found,) = check(plant(call, "ret", kind))
    assert found.code == code
    assert text in found.text


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("SetCR3", "SetCR3 is answered NOP, but natively there is CR3 0x"),
        ("SetPxE", "a store to memory"),
        ("GetCR2", "an answer in EAX"),
        ("RDTSC", "an answer in EAX"),
        ("DisableInterrupts", "a change of EFLAGS"),
    ],
)
def test_calls_that_may_not_be_dropped(plant: Plant, check: Check, call: str, text: str) -> None:
    (found,) = check(plant(call, "ret", NOP), call)
    assert found.code == "dropped"
    assert text in found.text


@pytest.mark.parametrize("call", ["UpdatePxE", "AllocatePage", "SetLazyMode", "IODelay"])
def test_calls_that_may_be_dropped(plant: Plant, check: Check, call: str) -> None:
    assert check(plant(call, "ret", NOP), call) == []


@pytest.mark.parametrize(
    ("entry", "source", "code", "text"),
    [
        ("vmi_init", "mov $7, %eax\n ret", "vmi-init", "vmi_init answers 0x7, expected 0"),
        ("vmi_init", "xor %ebp, %ebp\n", "vmi-init", "vmi_init changes EBP"),
        ("vmi_init", "std\n", "vmi-init", "vmi_init leaves DF set"),
        ("vmi_init", "xor %eax, %eax\n ret $8", "vmi-init", r"\+8 bytes"),
        ("vmi_init", "sti\n cli\n", "interrupt-window", "by sti with cli to follow"),
        ("vmi_init", "call 1f\n1: pop %eax\n incl (%eax)\n", "image-write", "its own image"),
        ("vmi_init", "mov 0xc00d0000, %eax\n", "absolute-address", "where the image is not"),
        ("vmi_init", "mov 0xf00d0000, %eax\n", "access", "reads from 0xf00d0000"),
        ("vmi_init", "jmp hook", "runaway", "does not end"),
        ("vmi_init", "call hook", "recursion", "needs more stack than"),
        ("get_reloc", "xor %ebx, %ebx\n", "get-reloc", "get_reloc changes EBX"),
        ("get_reloc", "inc %edi\n", "get-reloc", "get_reloc changes EDI"),
        ("get_reloc", "std\n", "get-reloc", "get_reloc leaves DF set"),
        ("get_reloc", "movl $0, 0x40(%esp)\n", "memory", "get_reloc leaves 00 00 00 00"),
        ("get_reloc", "cmp $99, %eax\n1: je 1b\n", "runaway", "get_reloc does not end"),
        ("get_reloc", "cmp $5, %eax\n jne 1f\n ud2\n1:\n", "exception", "get_reloc raises ud2"),
        (
            "get_reloc",
            "cmp $17, %eax\n jne 1f\n mov $0xc00c0200, %eax\n mov $1, %edx\n ret\n1:\n",
            "relocation-address",
            "SetCR3 is said to be at 0xc00c0200, the image at 0xc00c8800",
        ),
        (
            "get_reloc",
            MOVES,
            "relocation-moves",
            "SetCR3 is",
        ),
        (
            "get_reloc",
            "cmp $0xffffffff, %eax\n jne 1f\n mov $3, %edx\n ret\n1:\n",
            "unknown-call",
            "call 4294967295 does not exist",
        ),
    ],
)
def test_entries(
    plant_entry: Plant, check: Check, entry: str, source: str, code: str, text: str
) -> None:
    found = check(plant_entry(entry, source))
    assert code in {finding.code for finding in found}, found
    assert any(re.search(text, finding.text) for finding in found if finding.code == code), found
