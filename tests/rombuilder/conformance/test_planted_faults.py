"""Every planted fault is found, named rightly, and nothing else is."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from rombuilder.conformance.findings import Finding
from rombuilder.conformance.rules import RULES

Plant = Callable[..., bytes]
Check = Callable[..., list[Finding]]

SEES_ITSELF = "call 1f\n1: pop %ecx\n"

FAULTS = [
    # registers
    ("SetPxE", "mov %eax, (%edx)\n xor %ebx, %ebx\n ret", "register", "changes EBX"),
    ("CLTS", "clts\n mov %esp, %ebp\n ret", "register", "changes EBP"),
    ("DisableInterrupts", "cli\n xor %ecx, %ecx\n ret", "register", "changes ECX"),
    ("SetInterruptMask", "push %eax\n popfl\n inc %eax\n ret", "register", "changes EAX"),
    ("WRMSR", "wrmsr\n xor %eax, %eax\n ret", "register", "changes EAX"),
    ("SYSEXIT", "inc %eax\n sti\n sysexit", "register", "changes EAX"),
    ("IRET", "xor %esi, %esi\n iretl", "register", "changes ESI"),
    # DS and ES
    (
        "GetInterruptMask",
        "mov %esp, %eax\n mov (%eax), %eax\n pushfl\n pop %eax\n ret",
        "data-segment",
        "reads from memory through DS or ES",
    ),
    (
        "DisableInterrupts",
        "push %edi\n mov %esp, %edi\n push %eax\n stosl\n pop %eax\n pop %edi\n cli\n ret",
        "data-segment",
        "writes to memory through DS or ES",
    ),
    ("IRET", "push %eax\n mov %esp, %eax\n incl (%eax)\n pop %eax\n iretl", "data-segment", ""),
    ("SYSEXIT", "mov %esp, %edi\n push (%edi)\n sti\n sysexit", "data-segment", ""),
    ("SetCR2", "mov %eax, %cr2\n xor %eax, %eax\n mov %eax, %gs\n ret", "segment", "leaves GS 0x0"),
    # addresses and memory
    ("SetCR2", "mov %eax, %cr2\n mov 0x300, %eax\n ret", "absolute-address", "reads from 0x300"),
    (
        "SetCR2",
        "mov %eax, %cr2\n mov 0xc00c0000, %eax\n ret",
        "absolute-address",
        "reads from 0xc00c0000",
    ),
    ("SetCR2", "mov $0x100, %ecx\n jmp *%ecx", "absolute-address", "goes to 0x100"),
    (
        "SetCR3",
        f"{SEES_ITSELF} mov %eax, (%ecx)\n mov %eax, %cr3\n ret",
        "image-write",
        "writes to its own image at offset 0x",
    ),
    ("GetGDT", f"{SEES_ITSELF} sgdt (%ecx)\n ret", "image-write", "its own image at offset"),
    ("SetPxE", "mov %eax, (%edx)\n movl $0, 4(%edx)\n ret", "memory", "leaves 00 00 00 00 at"),
    ("SetPxE", "movl $1, 0x12345678\n ret", "access", r"writes to 0x12345678 \(4 bytes\)"),
    ("SetPxE", "ret", "memory", "expected"),
    ("WriteIDTEntry", "mov %ecx, (%eax,%edx,8)\n ret", "memory", "expected"),
    ("UpdatePxE", "movl $0, (%eax)\n ret", "memory", "leaves 00 00 00 00"),
    ("AllocatePage", "movl $0, 16(%esp)\n ret", "memory", "leaves 00 00 00 00"),
    # stack
    ("SetCR4", "mov %eax, %cr4\n ret $4", "stack", r"\+4 bytes"),
    ("SetCR4", "mov %eax, %cr4\n push $0x12345678\n ret", "stack", "goes to 0x.* instead of 0x"),
    ("SetCR0", "call planted\n ret", "recursion", "calls itself"),
    ("SetCR0", "jmp planted", "runaway", "does not end within"),
    ("EnableInterrupts", "call planted\n ret", "recursion", "calls itself"),
    # results
    ("GetCR3", "mov %cr2, %eax\n ret", "result", "answers EAX"),
    ("GetDR", "mov %dr0, %eax\n ret", "result", "answers EAX"),
    ("RDTSC", "rdtsc\n xor %edx, %edx\n ret", "result", "answers EDX 0x0"),
    ("CPUID", "cpuid\n xchg %ecx, %edx\n ret", "result", "answers ECX"),
    ("GetInterruptMask", "pushfl\n pop %eax\n xor $0x200, %eax\n ret", "result", "answers EAX"),
    ("PhysicalToMachine", "inc %eax\n ret", "result", "answers EAX"),
    # flags
    ("SetCR3", "mov %eax, %cr3\n std\n ret", "direction-flag", "leaves DF set"),
    ("DisableInterrupts", "cli\n cld\n ret", "direction-flag", "leaves DF clear"),
    ("SetCR3", "cli\n mov %eax, %cr3\n ret", "interrupt-flag", "leaves interrupts off"),
    ("EnableInterrupts", "ret", "interrupt-flag", "leaves interrupts off"),
    ("DisableInterrupts", "ret", "interrupt-flag", "leaves interrupts on"),
    ("SetInterruptMask", "cli\n ret", "interrupt-flag", "leaves interrupts off"),
    ("CLTS", "clts\n pushfl\n xorl $0x3000, (%esp)\n popfl\n ret", "flags", "leaves EFLAGS"),
    ("SetIOPLMask", "ret", "flags", "leaves EFLAGS"),
    (
        "SetCR3",
        "pushfl\n sti\n mov %eax, %cr3\n popfl\n ret",
        "interrupt-window",
        "turns interrupts on by sti with mov to follow",
    ),
    ("Halt", "sti\n nop\n hlt\n ret", "interrupt-window", "by sti with nop to follow"),
    ("SYSEXIT", "sti\n nop\n sysexit", "interrupt-window", "by sti with nop to follow"),
    # rings
    ("SYSEXIT", "sysexit", "interrupt-flag", "leaves interrupts off"),
    ("SYSEXIT", "xchg %ecx, %edx\n sti\n sysexit", "ring", "goes to"),
    ("SYSEXIT", "lea 4(%ecx), %ecx\n sti\n sysexit", "stack", r"\+4 bytes"),
    ("IRET", "addl $4, (%esp)\n iretl", "ring", "goes to"),
    ("IRET", "orl $0x200, 8(%esp)\n iretl", "interrupt-flag", "leaves interrupts on"),
    ("IRET", "orl $1, 8(%esp)\n iretl", "flags", "leaves EFLAGS"),
    # string port calls end as the native instruction, and go the way that DF says
    ("INSB", "push %edi\n rep insb\n pop %edi\n ret", "result", "answers EDI"),
    ("OUTSW", "rep outsw\n mov $1, %ecx\n ret", "result", "answers ECX 0x1, expected 0x0"),
    ("INSW", "pushfl\n cld\n rep insw\n popfl\n ret", "result", "answers EDI"),
    ("OUTS", "cld\n rep outsl\n ret", "direction-flag", "leaves DF clear"),
    # effects
    ("SetCR3", "ret", "effect", "does nothing, natively CR3 0x"),
    ("SetCR4", "mov %eax, %cr4\n mov %eax, %cr4\n ret", "effect", "does CR4 0x.*, CR4 0x"),
    ("SetDR", "mov %edx, %dr0\n ret", "effect", "does DR0"),
    ("OUTB", "out %al, %dx\n out %al, %dx\n ret", "effect", "does OUT8 .*, OUT8"),
    ("InvalPage", "ret", "effect", "does nothing, natively INVLPG"),
    ("FlushTLB", "ret", "effect", "does nothing, natively CR3"),
    ("FlushTLB", "mov %cr3, %eax\n mov %eax, %cr3\n ret", "effect", "does CR3"),
    ("FlushTLB", "xor %eax, %eax\n mov %eax, %cr3\n ret", "effect", "does CR3 0x0"),
    ("IODelay", "out %al, $0x70\n ret", "effect", "does OUT8 0x70"),
    ("Halt", "hlt\n ret", "effect", "halts with interrupts off"),
    ("Shutdown", "ret", "stop", "returns"),
    ("Reboot", "cli\n hlt", "reset", "halts with interrupts off"),
    ("SetCR0", "ud2", "exception", "raises ud2"),
    ("SetCR0", "xor %ecx, %ecx\n div %ecx\n ret", "exception", "raises exception 0"),
    ("SetCR0", "int $0x80\n ret", "exception", "raises int 0x80"),
    ("GetCycleFrequency", "std\n ret", "timer-group", "offers GetCycleFrequency but not Get"),
]


@pytest.mark.parametrize(
    ("call", "source", "code", "text"),
    FAULTS,
    ids=[f"{fault[0]}-{fault[2]}-{index}" for index, fault in enumerate(FAULTS)],
)
def test_fault(plant: Plant, check: Check, call: str, source: str, code: str, text: str) -> None:
    found = check(plant(call, source), call)
    assert code in {finding.code for finding in found}, found
    (named,) = [finding for finding in found if finding.code == code]
    assert named.call == (call if code != "timer-group" else "get_reloc")
    assert re.search(text, named.text), named.text
    assert named.state
    assert named.seed.startswith("1/0x")
    assert (named.rule, named.source) == (RULES[code].text, RULES[code].source)


TOGGLES_PGE = """
    mov %cr4, %eax
    xor $0x80, %eax
    mov %eax, %cr4
    xor $0x80, %eax
    mov %eax, %cr4
    ret
"""
READS_THROUGH_CS = """
    pushfl
    pop %eax
    push %ebx
    call 3f
3:  pop %ebx
    .byte 0x2e, 0x8b, 0x1b
    pop %ebx
    ret
"""

OTHER_WAYS = [
    ("SetCR3", "pushfl\n cli\n mov %eax, %cr3\n popfl\n ret"),
    ("CLTS", "mov %cr0, %eax\n and $0xfffffff7, %eax\n mov %eax, %cr0\n ret"),
    ("SetPxE", "push %edi\n mov %edx, %edi\n stosl\n pop %edi\n ret"),
    ("AllocatePage", "movl $0, 4(%esp)\n ret"),  # its own arguments
    (
        "InvalPage",
        TOGGLES_PGE,
    ),
    (
        "FlushTLB",
        TOGGLES_PGE,
    ),
    ("IODelay", "out %al, $0xed\n ret"),
    ("IODelay", "ret"),
    ("GetInterruptMask", "pushfl\n pop %eax\n and $0x200, %eax\n ret"),
    ("SetInterruptMask", "test $0x200, %eax\n jnz 3f\n cli\n ret\n3: sti\n ret"),
    (
        "GetInterruptMask",
        READS_THROUGH_CS,
    ),
    (
        "SYSEXIT",
        "push $0x7b\n push %ecx\n pushfl\n orl $0x200, (%esp)\n push $0x73\n push %edx\n iretl",
    ),
    ("Reboot", "push $0\n push $0\n lidt (%esp)\n int3"),
    ("Reboot", "mov $0xcf9, %edx\n mov $6, %al\n out %al, %dx\n hlt"),
    ("INSB", "rep insb\n ret"),
    ("INSW", "rep insw\n ret"),
    ("OUTS", "rep outsl\n ret"),
    ("OUT", "out %eax, %dx\n ret"),
    ("INB", "xor %eax, %eax\n in %dx, %al\n ret"),
    ("GetLDT", "sldt %eax\n ret"),
    ("SetInitialAPState", "ret"),
    ("WallclockUpdated", "xor %eax, %eax\n ret"),
    ("APICWrite", "mov %edx, 0xfee00000(%eax)\n ret"),
    ("APICRead", "mov 0xfee00000(%eax), %eax\n ret"),
]


@pytest.mark.parametrize(("call", "source"), OTHER_WAYS)
def test_another_way_to_do_right(plant: Plant, check: Check, call: str, source: str) -> None:
    assert check(plant(call, source), call) == []


@pytest.mark.parametrize(
    ("call", "source", "code"),
    [
        ("APICWrite", "ret", "memory"),
        ("APICWrite", "mov %edx, 0xfee00010(%eax)\n ret", "memory"),
        ("APICRead", "mov 0xfee00010(%eax), %eax\n ret", "result"),
    ],
)
def test_the_local_apic(plant: Plant, check: Check, call: str, source: str, code: str) -> None:
    assert code in {finding.code for finding in check(plant(call, source), call)}
