"""Whatever a guest does, the run ends in an outcome, and the host's memory is not its to touch."""

import random
import struct
from collections.abc import Callable

import pytest

from vmm.core.mmu.checker import ShadowChecker
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.core.policy import policy_named
from vmm.machine import Machine

K = OutcomeKind
DIRECTORY, TABLE, GDT = 0x10C000, 0x10D000, 0x108000


@pytest.fixture
def survive(tiny_guest, make_machine) -> Callable[..., tuple[Outcome, Machine]]:
    """Run a hostile guest; the shadow must be in order at the end."""

    def run(source: str, **about) -> tuple[Outcome, Machine]:
        parts = {key: about.pop(key, None) for key in ("handlers", "gates", "pieces")}
        about.setdefault("max_instructions", 200_000)
        machine = make_machine(tiny_guest(source, **parts), **about)
        result = machine.run()
        ShadowChecker(machine.vcpu).check()
        assert result.outcome.kind is not K.ENGINE_FAILURE, result.outcome
        return result.outcome, machine

    return run


# Source after "start: PAGING", and the outcomes that are right for it.
PROGRAMS: dict[str, tuple[str, set[OutcomeKind]]] = {
    "endless loop": ("1: jmp 1b", {K.LIMIT}),
    "endless loop without paging": (
        "mov %cr0, %eax\n and $0x7fffffff, %eax\n mov %eax, %cr0\n1: jmp 1b",
        {K.LIMIT},
    ),
    "endless faults": ("movl $at, 0x104000\nat: ud2", {K.FAILED}),
    "halt": ("hlt", {K.HALTED}),
    "halt with interrupts on": ("sti\n hlt", {K.HALTED}),
    "halt in ring 3": ("USER_MODE user\nuser: hlt", {K.FAILED}),
    "CR3 outside RAM": ("mov $0x7f000000, %eax\n mov %eax, %cr3\n hlt", {K.TRIPLE_FAULT}),
    "CR3 at the top": ("mov $0xfffff000, %eax\n mov %eax, %cr3\n hlt", {K.TRIPLE_FAULT}),
    "CR3 with low bits": ("mov $DIRECTORY + 0xfff, %eax\n mov %eax, %cr3\n FINISH 0", {K.PASSED}),
    "CR3 in the pool": ("mov $0xe0000000, %eax\n mov %eax, %cr3\n hlt", {K.TRIPLE_FAULT}),
    "CR3 in the scratch pages": ("mov $0xf0000000, %eax\n mov %eax, %cr3\n hlt", {K.TRIPLE_FAULT}),
    "CR3 in the windows": ("mov $0xf8000000, %eax\n mov %eax, %cr3\n hlt", {K.TRIPLE_FAULT}),
    "CR3 in the VGA hole": ("mov $0xa0000, %eax\n mov %eax, %cr3\n hlt", {K.TRIPLE_FAULT}),
    "CR3 at its own table": (
        "mov $TABLE, %eax\n mov %eax, %cr3\n hlt",
        {K.TRIPLE_FAULT, K.LIMIT, K.UNSUPPORTED},
    ),
    "jump to nothing": ("mov $0x800000, %eax\n jmp *%eax", {K.FAILED}),
    "jump to an empty bus": (
        "movl $0x80000000 | OPEN, TABLE + 0xffc\n mov $0x3ff000, %eax\n jmp *%eax",
        {K.FAILED},
    ),
    "jump to the VGA hole": ("mov $0xa0000, %eax\n jmp *%eax", {K.FAILED}),
    "jump across the edge of RAM": (
        "movl $0, TABLE + 0x3ff * 4\n movw $0xc031, 0x3fefff\n mov $0x3fefff, %eax\n jmp *%eax",
        {K.FAILED},
    ),
    "stack at 0": ("xor %esp, %esp\n push %eax", {K.TRIPLE_FAULT}),
    "stack at 2": ("mov $2, %esp\n int $0x80", {K.TRIPLE_FAULT, K.UNSUPPORTED}),
    "misaligned stack": ("mov $0x10fffe, %esp\n ud2", {K.UNSUPPORTED, K.FAILED}),
    "IDT limit 0": ("movw $0, idt_pointer\n lidt idt_pointer\n ud2", {K.TRIPLE_FAULT}),
    "IDT nowhere": ("movl $0x80000000, idt_pointer + 2\n lidt idt_pointer\n ud2", {K.TRIPLE_FAULT}),
    "IDT at the top": (
        "movl $0xfffffffe, idt_pointer + 2\n lidt idt_pointer\n ud2",
        {K.TRIPLE_FAULT},
    ),
    "GDT nowhere": (
        "movl $0x80000000, gdt_pointer + 2\n lgdt gdt_pointer\n mov $0x10, %eax\n mov %ax, %ds",
        {K.TRIPLE_FAULT},
    ),
    "GDT limit 0": ("movw $0, gdt_pointer\n lgdt gdt_pointer\n int $0x80", {K.TRIPLE_FAULT}),
    "GDT all ones": (
        "movl $0xc0000, gdt_pointer + 2\n lgdt gdt_pointer\n mov $0x28, %eax\n ltr %ax",
        {K.TRIPLE_FAULT},
    ),
    "port in ring 3": (
        "USER_MODE user\nuser: mov $0x501, %edx\n outl %eax, (%dx)",
        {K.FAILED},
    ),
    "doorbell in ring 3": (
        "USER_MODE user\nuser: mov $DOORBELL_PORT, %edx\n inl (%dx), %eax",
        {K.FAILED},
    ),
    "SYSENTER in ring 3": ("USER_MODE user\nuser: sysenter\n hlt", {K.FAILED}),
    "SYSENTER in ring 0": ("sysenter\n hlt", {K.FAILED}),
    "SYSEXIT": ("sysexit", {K.FAILED}),
    "far jump to a task": (
        "ljmp_task: .byte 0xea\n .long 0\n .word 0x28",
        {K.FAILED, K.UNSUPPORTED},
    ),
    "far jump to another task": (
        (
            "movl $0x40000067, GDT + 0x18\n movl $0x00008920, GDT + 0x1c\n .byte 0xea\n .long 0\n"
            " .word 0x18"
        ),
        {K.FAILED, K.UNSUPPORTED, K.TRIPLE_FAULT, K.LIMIT},
    ),
    "task gate": (
        "movl $0x8500, IDT + 0x204\n movl $0x280000, IDT + 0x200\n int $0x40",
        {K.UNSUPPORTED},
    ),
    "iret with NT": (
        "pushl $0x4002\n popfl\n push $0\n push $0\n push $0\n iretl",
        {K.FAILED, K.UNSUPPORTED, K.TRIPLE_FAULT},
    ),
    "iret to virtual-8086 mode": (
        (
            "push $0\n push $0\n push $0\n push $0\n push $0x1000\n push $0\n"
            " push $0x20002\n push $0\n"
            " push $0\n iretl"
        ),
        {K.UNSUPPORTED, K.FAILED, K.TRIPLE_FAULT},
    ),
    "iret to garbage": ("push $2\n push $0x1237\n push $0x55\n iretl", {K.FAILED}),
    "MOV DR7": (
        (
            "mov $0xffffffff, %eax\n mov %eax, %dr7\n mov %eax, %dr0\n mov %dr7, %eax\n"
            " mov %eax, %dr4\n mov %dr6, %eax\n FINISH 0"
        ),
        {K.PASSED},
    ),
    "debug registers in ring 3": ("USER_MODE user\nuser: mov %dr7, %eax", {K.FAILED}),
    "WRMSR of EFER": (
        "mov $0xc0000080, %ecx\n mov $-1, %eax\n wrmsr",
        {K.FAILED},
    ),
    "WRMSR of everything": (
        (
            "mov $0x1b, %ecx\n wrmsr\n mov $0x10, %ecx\n wrmsr\n"
            " rdmsr\n mov $0x174, %ecx\n wrmsr\n FINISH 0"
        ),
        {K.PASSED},
    ),
    "MSRs in ring 3": ("USER_MODE user\nuser: rdmsr", {K.FAILED}),
    "CR4.PAE": ("mov %cr4, %eax\n or $0x20, %eax\n mov %eax, %cr4", {K.TRIPLE_FAULT}),
    "CR4 reserved bits": ("mov $0x80000000, %eax\n mov %eax, %cr4", {K.FAILED}),
    "CR0.PG without PE": ("mov $0x80000000, %eax\n mov %eax, %cr0", {K.FAILED}),
    "real mode": ("mov $0x10, %eax\n mov %eax, %cr0\n jmp 1f\n1: FINISH 0", {K.PASSED}),
    "INT in real mode": (
        "mov $0x10, %eax\n mov %eax, %cr0\n jmp 1f\n1: int $3",
        {K.FAILED, K.UNSUPPORTED, K.TRIPLE_FAULT, K.LIMIT},
    ),
    "CR0.PG off and on": (
        (
            "mov %cr0, %eax\n mov %eax, %ebx\n and $0x7fffffff, %eax\n mov %eax, %cr0\n"
            " mov %ebx, %cr0\n FINISH 0"
        ),
        {K.PASSED},
    ),
    "CR2 and CR8": (
        (
            "mov $0x1234, %eax\n mov %eax, %cr2\n mov %cr2, %ebx\n cmp %eax, %ebx\n"
            " jne 1f\n FINISH 0\n1: FINISH 1"
        ),
        {K.PASSED},
    ),
    "CR1": (".byte 0x0f, 0x20, 0xc8", {K.FAILED}),
    "CR5": (".byte 0x0f, 0x22, 0xe8", {K.FAILED}),
    "LMSW and CLTS": ("mov $0xf, %eax\n lmsw %ax\n clts\n smsw %eax\n FINISH 0", {K.PASSED}),
    "LMSW from memory": ("lmsw 0x200000", {K.UNSUPPORTED}),
    "SMSW to memory": ("smsw 0x200000", {K.UNSUPPORTED}),
    "INVD and WBINVD": ("invd\n wbinvd\n FINISH 0", {K.PASSED}),
    "INVLPG of a register": (".byte 0x0f, 0x01, 0xf8\n FINISH 0", {K.FAILED}),
    "UD2": ("ud2", {K.FAILED}),
    "RSM": (".byte 0x0f, 0xaa", {K.FAILED}),
    "VMRUN": (".byte 0x0f, 0x01, 0xd8", {K.FAILED}),
    "STGI": (".byte 0x0f, 0x01, 0xdc", {K.FAILED, K.PASSED, K.UNSUPPORTED}),
    "CLGI": (".byte 0x0f, 0x01, 0xdd", {K.FAILED, K.PASSED, K.UNSUPPORTED}),
    "SKINIT": (".byte 0x0f, 0x01, 0xde", {K.FAILED, K.PASSED, K.UNSUPPORTED}),
    "INVLPGA": (".byte 0x0f, 0x01, 0xdf", {K.FAILED, K.PASSED, K.UNSUPPORTED}),
    "VMLOAD": (".byte 0x0f, 0x01, 0xda", {K.FAILED, K.PASSED, K.UNSUPPORTED}),
    "VMSAVE": (".byte 0x0f, 0x01, 0xdb", {K.FAILED, K.PASSED, K.UNSUPPORTED}),
    "RDPMC": ("rdpmc", {K.FAILED, K.UNSUPPORTED}),
    "RDTSCP": (".byte 0x0f, 0x01, 0xf9\n", {K.FAILED, K.UNSUPPORTED}),
    "XGETBV": (".byte 0x0f, 0x01, 0xd0\n", {K.FAILED, K.UNSUPPORTED}),
    "PAUSE": ("pause\n FINISH 0", {K.PASSED}),
    "ICEBP": (".byte 0xf1", {K.FAILED, K.UNSUPPORTED}),
    "single step": ("pushfl\n orl $0x100, (%esp)\n popfl\n nop\n nop", {K.FAILED}),
    "BOUND": (
        (
            "movl $5, 0x200000\n movl $6, 0x200004\n xor %eax, %eax\n .byte 0x62, 0x05\n"
            " .long 0x200000"
        ),
        {K.FAILED},
    ),
    "too long an instruction": (".fill 16, 1, 0x66\n nop", {K.FAILED}),
    "INS to RAM": (
        "mov $0x402, %edx\n mov $0x200000, %edi\n mov $64, %ecx\n cld\n rep insb\n FINISH 0",
        {K.PASSED},
    ),
    "INS to a page table": (
        (
            "mov $0x402, %edx\n mov $DIRECTORY + 0x800, %edi\n mov $64, %ecx\n"
            " cld\n rep insb\n FINISH 0"
        ),
        {K.PASSED, K.UNSUPPORTED},
    ),
    "OUTS from nowhere": ("mov $0x402, %edx\n mov $0x800000, %esi\n outsb", {K.FAILED}),
    "exit port bytes": ("mov $0x501, %edx\n xor %eax, %eax\n outb %al, (%dx)", {K.PASSED}),
    "PCI garbage": (
        (
            "mov $0xcf8, %edx\n mov $0xffffffff, %eax\n outl %eax, (%dx)\n mov $0xcfc, %edx\n"
            " outl %eax, (%dx)\n inl (%dx), %eax\n mov $0xcff, %edx\n outl %eax, (%dx)\n"
            " inl (%dx), %eax\n outw %ax, (%dx)\n inw (%dx), %ax\n FINISH 0"
        ),
        {K.PASSED},
    ),
    "write to the ROM area": (
        "movl $1, 0xc0000\n cmpl $1, 0xc0000\n je 1f\n FINISH 0\n1: FINISH 1",
        {K.PASSED},
    ),
    "sweep over the ROM area": (
        "mov $0xbf000, %edi\n mov $0x1000, %ecx\n mov $0x55, %eax\n cld\n rep stosl\n FINISH 0",
        {K.PASSED},
    ),
    "arithmetic on the ROM": ("incl 0xc0000\n", {K.UNSUPPORTED}),
    "ROM executed": ("mov $0xc0000, %eax\n jmp *%eax", {K.FAILED, K.LIMIT, K.TRIPLE_FAULT}),
    "faults at a handler's first instruction": (
        (
            "mov %cr4, %eax\n or $0x10, %eax\n mov %eax, %cr4\n movl $0x800000e7, DIRECTORY + 4\n"
            " mov $0x700000, %esp\n lea at, %eax\n mov %ax, IDT + 6 * 8\nat: ud2"
        ),
        {K.UNSUPPORTED, K.FAILED},
    ),
    "REP STOS over the live directory": (
        "mov $DIRECTORY, %edi\n mov $1024, %ecx\n xor %eax, %eax\n cld\n rep stosl\n mov 0, %eax",
        {K.TRIPLE_FAULT},
    ),
    "REP STOS over the live table": (
        (
            "mov $TABLE, %edi\n mov $1024, %ecx\n xor %eax, %eax\n cld\n rep stosl\n"
            " mov %cr3, %eax\n mov %eax, %cr3"
        ),
        # The push that reaches the table in the end, after many faults.
        {K.TRIPLE_FAULT, K.UNSUPPORTED},
    ),
    "REP MOVS over both": (
        (
            "mov $0x100000, %esi\n mov $DIRECTORY, %edi\n mov $2048, %ecx\n cld\n rep movsl\n"
            " mov %cr3, %eax\n mov %eax, %cr3"
        ),
        {K.TRIPLE_FAULT, K.FAILED},
    ),
    "REP MOVS from nowhere": (
        "mov $0x800000, %esi\n mov $DIRECTORY, %edi\n mov $2048, %ecx\n cld\n rep movsl",
        {K.FAILED},
    ),
    "FXSAVE to the live directory": (
        "mov %cr4, %eax\n or $0x200, %eax\n mov %eax, %cr4\n fxsave DIRECTORY + 0x800\n FINISH 0",
        {K.UNSUPPORTED},
    ),
    "push to the live directory": ("mov $DIRECTORY + 0x900, %esp\n push %eax", {K.UNSUPPORTED}),
    "misaligned store to the live directory": (
        "movl $-1, DIRECTORY + 0x802\n movl $-1, DIRECTORY + 0xffd\n",
        {K.UNSUPPORTED},
    ),
    "store that ends in the live directory": ("movl $-1, DIRECTORY - 2\n", {K.UNSUPPORTED}),
    "a PAE directory whose second table lies beyond 4 GiB": (
        (
            "mov %cr0, %eax\n mov %eax, %ebx\n and $0x7fffffff, %eax\n mov %eax, %cr0\n"
            " mov $0x210000, %edi\n mov $OPEN, %eax\n"
            "1: movl %eax, (%edi)\n movl $0, 4(%edi)\n add $0x1000, %eax\n add $8, %edi\n"
            " cmp $0x211000, %edi\n jne 1b\n"
            " movl $0x212001, 0x200000\n movl $0x213001, 0x200020\n"
            " movl $0x210000 | OPEN, 0x212000\n movl $0x210000 | OPEN, 0x213000\n"
            " movl $0x217000 | OPEN, 0x213008\n movl $0xf, 0x21300c\n"
            " mov %cr4, %eax\n or $0x20, %eax\n mov %eax, %cr4\n mov $0x200000, %eax\n"
            " mov %eax, %cr3\n mov %ebx, %cr0\n mov 0x100000, %eax\n"
            # The table is shadowed now; the second directory leads to it as well.
            " mov $0x200020, %eax\n mov %eax, %cr3\n mov 0x100000, %eax\n FINISH 0"
        ),
        {K.PASSED},
    ),
    "a table that maps itself": (
        (
            "movl $DIRECTORY | OPEN, DIRECTORY + 0xffc\n movl $0x200000 | OPEN, 0xfffff004\n"
            " movl $0x300000 | OPEN, 0x200000\n movl $7, 0x400000\n cmpl $7, 0x300000\n jne 1f\n"
            " movl $0, 0xfffff004\n invlpg 0x400000\n mov 0xfffff000, %eax\n FINISH 0\n1: FINISH 1"
        ),
        {K.PASSED},
    ),
    "table in the ROM": (
        "movl $0xc0000 | OPEN, DIRECTORY + 4\n mov 0x400000, %eax\n FINISH 0",
        {K.PASSED, K.FAILED},
    ),
    "table in MMIO": ("movl $0x80000000 | OPEN, DIRECTORY + 4\n mov 0x400000, %eax", {K.FAILED}),
    "table in the pool": (
        "movl $0xe0001000 | OPEN, DIRECTORY + 4\n mov 0x400000, %eax",
        {K.FAILED},
    ),
    "large page over the pool": (
        (
            "mov %cr4, %eax\n or $0x10, %eax\n mov %eax, %cr4\n movl $0xe00000e7, DIRECTORY + 4\n"
            " mov $0x400000, %edi\n mov $0x2000, %ecx\n mov $-1, %eax\n cld\n rep stosl\n"
            " mov 0x400000, %eax\n FINISH 0"
        ),
        {K.PASSED, K.LIMIT},
    ),
    "large page over the scratch pages": (
        (
            "mov %cr4, %eax\n or $0x10, %eax\n mov %eax, %cr4\n movl $0xf00000e7, DIRECTORY + 4\n"
            " mov $0x400000, %edi\n mov $0x1000, %ecx\n xor %eax, %eax\n cld\n rep stosl\n"
            " mov $0x10, %ecx\n rdmsr\n FINISH 0"
        ),
        {K.PASSED},
    ),
    "page over the scratch pages": (
        (
            "movl $0xf0002000 | OPEN, TABLE + 0xffc\n mov $0x3ff000, %edi\n mov $0x400, %ecx\n"
            " xor %eax, %eax\n cld\n rep stosl\n mov $0x10, %ecx\n rdmsr\n FINISH 0"
        ),
        {K.PASSED},
    ),
    "more pages of MMIO than windows": (
        (
            "mov %cr4, %eax\n or $0x10, %eax\n mov %eax, %cr4\n movl $0x800000e7, DIRECTORY + 4\n"
            " mov $3, %ebx\n2: mov $0x400000, %edi\n mov $600, %ecx\n"
            "1: movl $1, (%edi)\n mov 8(%edi), %eax\n cmp $-1, %eax\n jne 3f\n add $0x1000, %edi\n"
            " dec %ecx\n jnz 1b\n dec %ebx\n jnz 2b\n FINISH 0\n3: FINISH 1"
        ),
        {K.PASSED},
    ),
    "string copies between pages of MMIO": (
        (
            "mov %cr4, %eax\n or $0x10, %eax\n mov %eax, %cr4\n movl $0x800000e7, DIRECTORY + 4\n"
            " mov $0x400000, %esi\n mov $0x500000, %edi\n mov $0x4000, %ecx\n cld\n rep movsb\n"
            " FINISH 0"
        ),
        {K.PASSED},
    ),
    "RDTSC and CPUID": (
        "rdtsc\n mov $-1, %eax\n cpuid\n mov $0x80000000, %eax\n cpuid\n FINISH 0",
        {K.PASSED},
    ),
    "more port reads than the limit": (
        (
            "xor %edx, %edx\n1: inb (%dx), %al\n inl (%dx), %eax\n inc %edx\n"
            " cmp $0x4ff, %edx\n jne 1b\n FINISH 0"
        ),
        {K.PASSED},
    ),
    "doorbell with a null queue": (
        "RING DOORBELL_FLUSH, 0\n test %eax, %eax\n jnz 1f\n FINISH 0\n1: FINISH 1",
        {K.PASSED},
    ),
    "doorbell functions that do not exist": (
        (
            "mov $-1000, %ebx\n1: mov %ebx, %eax\n mov $DOORBELL_PORT, %edx\n outl %eax, (%dx)\n"
            " test %eax, %eax\n jnz 2f\n inc %ebx\n jnz 1b\n FINISH 0\n2: FINISH 1"
        ),
        {K.PASSED},
    ),
    "doorbell attach of nothing": (
        (
            "RING DOORBELL_ATTACH, 0x800000\n test %eax, %eax\n jnz 1f\n"
            " RING DOORBELL_ATTACH, 0xffffffff\n test %eax, %eax\n jnz 1f\n"
            " RING DOORBELL_ATTACH, 0x200000\n test %eax, %eax\n jnz 1f\n FINISH 0\n1: FINISH 1"
        ),
        {K.PASSED},
    ),
    "doorbell in other widths": (
        (
            "mov $DOORBELL_PORT, %edx\n outb %al, (%dx)\n outw %ax, (%dx)\n inb (%dx), %al\n"
            " cmp $0xff, %al\n jne 1f\n FINISH 0\n1: FINISH 1"
        ),
        {K.PASSED},
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("policy", ["svm-shadow", "vtx-shadow"])
def test_a_hostile_program_ends_in_an_outcome(survive, name: str, policy: str) -> None:
    source, expected = PROGRAMS[name]
    outcome, _ = survive(
        f"start: PAGING\n{source}\n FINISH 77\n",
        policy=policy_named(policy),
        # Executing a page of zeros is slow: each of its exits starts a new block.
        max_instructions=1000 if name == "ROM executed" else 20_000,
    )
    assert outcome.kind in expected, outcome
    assert outcome.detail or outcome.kind is K.PASSED
    assert "check 77 " not in outcome.detail or "FINISH" in source or "lmsw" in source, outcome


@pytest.mark.parametrize("name", ["stack at 0", "IDT nowhere", "GDT nowhere", "endless loop"])
def test_hostile_before_paging(survive, name: str) -> None:
    source, expected = PROGRAMS[name]
    outcome, _ = survive(f"start: {source}\n FINISH 77\n")
    assert outcome.kind in {*expected, K.FAILED, K.TRIPLE_FAULT, K.UNSUPPORTED}


@pytest.mark.parametrize(
    "address",
    ["0xffffffff", "0xfffffffe", "0xfffffffc", "0xffffffe0", "0x80000000", "0x3ffffc", "1"],
)
def test_a_block_that_is_none_is_refused(survive, address: str) -> None:
    """Unpaged, where every address is one."""
    source = f"RING DOORBELL_IDE_TAKE, {address}\n test %eax, %eax\n jnz 1f\n FINISH 0\n1: FINISH 1"
    outcome, machine = survive(f"start: {source}\n")
    assert outcome.kind is K.PASSED
    assert [text for text in machine.vcpu.doorbell.complaints if "IDE_TAKE" in text]


@pytest.mark.parametrize(
    "rest",
    ["cli\n hlt", "lidt 0x200000\n ud2", "mov $0x10, %ecx\n mov %ecx, %cr0", "outl %eax, (%dx)"],
)
def test_what_follows_the_end_changes_nothing(run_guest, rest: str) -> None:
    """The engine goes on to the end of the block after the exit port was written."""
    run_guest(f"start: PAGING\n mov $0x501, %edx\n xor %eax, %eax\n outl %eax, (%dx)\n {rest}\n")


def test_a_frame_over_the_entry_that_maps_it_is_stored_whole(survive) -> None:
    """As by a processor, which has translated the stack before it stores there."""
    source = "start: PAGING\n mov $DIRECTORY + 12, %esp\n int $0x41\n FINISH 77\n"
    outcome, machine = survive(source, gates={0x41: bytes(8)})
    assert outcome.kind is K.TRIPLE_FAULT
    assert machine.memory.read32(DIRECTORY - 4) == 0x41 * 8 + 2


def test_the_limit_is_a_limit(survive) -> None:
    outcome, machine = survive("start: 1: jmp 1b\n", max_instructions=1000)
    assert outcome == Outcome(K.LIMIT, "1000 instructions have passed")
    assert 990 <= machine.vcpu.meter.instructions <= 1000


def test_complaints_are_bounded(tiny_guest, make_machine) -> None:
    source, _ = PROGRAMS["doorbell functions that do not exist"]
    run = make_machine(tiny_guest(f"start: PAGING\n{source}")).run()
    assert 1 <= len(run.complaints) <= 16
    assert run.paravirt.hypercalls == 1000


def test_the_scratch_pages_are_out_of_reach(tiny_guest, make_machine) -> None:
    """The MSR bitmap and the intercept block lie there; a guest sees an empty bus."""
    source, _ = PROGRAMS["large page over the scratch pages"]
    machine = make_machine(tiny_guest(f"start: PAGING\n{source}"))
    before = bytes(machine.engines[0]._scratch[0x2000:])
    assert machine.run().outcome.ok
    assert bytes(machine.engines[0]._scratch[0x2000:]) == before


def test_a_pool_that_runs_out_starts_afresh(run_guest) -> None:
    """Thousands of tables in turn: each translation must be right, before and after."""
    source = """
	.set PAGES, 15000
start:	movl $0x200000 | OPEN, DIRECTORY + 4	# a table of our own, for 4 MiB from 4 MiB on
	mov $0x1000000, %edi			# tables from 16 MiB: each maps one page, to itself
	mov $PAGES, %ecx
1:	mov %edi, %eax
	or $OPEN, %eax
	mov %eax, (%edi)
	add $0x1000, %edi
	dec %ecx
	jnz 1b
	PAGING
	mov $0x1000000, %edi
	mov $PAGES, %ecx
2:	mov %edi, %eax
	or $OPEN, %eax
	mov %eax, DIRECTORY + 8			# the table is now the one for 8 MiB
	invlpg 0x800000
	mov 0x800000, %eax			# the table's own first entry
	and $0xfffff000, %eax
	cmp %eax, %edi
	jne 3f
	add $0x1000, %edi
	dec %ecx
	jnz 2b
	FINISH 0
3:	FINISH 1
"""
    run = run_guest(source, memory=96 << 20)
    assert run.instructions > 100_000


def test_thousands_of_directories(tiny_guest, make_machine) -> None:
    """More address spaces than cached roots, and than pages in the pool."""
    source = """
start:	PAGING
	mov $0x1000000, %edi
	mov $3000, %ecx
1:	movl $TABLE | OPEN, (%edi)		# identity for the first 4 MiB, and a mark at 8 MiB
	mov %edi, %eax
	or $OPEN, %eax
	add $0x1000, %edi
	dec %ecx
	jnz 1b
	mov $2, %ebp
2:	mov $0x1000000, %edi
	mov $3000, %ecx
3:	mov %edi, %cr3
	mov 0x100000, %eax
	cmp $0x1badb002, %eax
	jne 4f
	add $0x1000, %edi
	dec %ecx
	jnz 3b
	dec %ebp
	jnz 2b
	FINISH 0
4:	FINISH 1
"""
    # The tables are filled through a large page.
    source = source.replace(
        "start:	PAGING",
        "start: mov %cr4, %eax\n or $0x10, %eax\n mov %eax, %cr4\n"
        " movl $0x10000e7, DIRECTORY + 16\n"
        " movl $0x14000e7, DIRECTORY + 20\n movl $0x18000e7, DIRECTORY + 24\n PAGING",
    )
    machine = make_machine(tiny_guest(source), memory=64 << 20)
    result = machine.run()
    assert result.outcome.ok, result.outcome
    ShadowChecker(machine.vcpu).check()
    assert result.ledger.by_reason["cr_write"].count > 6000


def test_stale_pool_contents_do_not_survive_a_reset(run_guest) -> None:
    """CR0.WP and CR4.PSE change what entries mean: everything is judged anew."""
    run_guest(
        """
start:	movl $0x300065, TABLE + 0x300 * 4	# read-only, for all
	PAGING
	mov %cr0, %eax
	and $0xfffeffff, %eax
	mov %eax, %cr0
	movl $1, 0x300000			# allowed
	mov %cr0, %eax
	or $0x10000, %eax
	mov %eax, %cr0
	movl $1, 0x300000			# not allowed
	FINISH 1
fault:	FINISH 0
""",
        handlers={14: "fault"},
    )


@pytest.mark.parametrize("seed", range(12))
def test_random_bytes_as_a_program(survive, seed: int) -> None:
    noise = random.Random(seed)  # noqa: S311 - tests repeat
    for _ in range(6):
        code = noise.randbytes(512)
        lines = "\n".join(
            ".byte " + ", ".join(str(b) for b in code[i : i + 16]) for i in range(0, 512, 16)
        )
        jumps = noise.choice(("", "USER_MODE user\nuser:\n"))
        survive(f"start: PAGING\n{jumps}{lines}\n FINISH 77\n", max_instructions=20_000)


@pytest.mark.parametrize("seed", range(6))
def test_random_page_tables(survive, seed: int) -> None:
    """Directory and table full of noise, but for what the code itself needs."""
    noise = random.Random(seed)  # noqa: S311 - tests repeat
    entries = [noise.getrandbits(32) for _ in range(1024)]
    some = [
        noise.choice((0, 0x10C, 0x10D, 0x200, 0xC0, 0xA0, 0xE0000, 0xF0002, 0xF8000, 0xFFFFF))
        for _ in range(1024)
    ]
    for i in range(0, 1024, 3):
        entries[i] = some[i] << 12 | noise.getrandbits(12) & 0xE7
    entries[0] = TABLE | 0x67
    source = """
start:	mov %cr4, %eax
	or $0x10, %eax
	mov %eax, %cr4
	PAGING
	mov $0x12345, %ebx
	mov $1000, %ecx
1:	imul $1103515245, %ebx, %ebx
	add $12345, %ebx
	mov %ebx, %esi
	test $8, %ebx
	jz 2f
	mov (%esi), %eax
2:	mov %ebx, (%esi)
	xchg %eax, (%esi)
next:	dec %ecx
	jnz 1b
	FINISH 0
fault:	add $4, %esp
	movl $next, (%esp)
	iretl
"""
    outcome, _ = survive(
        source,
        handlers={14: "fault", 13: "fault"},
        pieces={DIRECTORY: struct.pack("<1024I", *entries)},
    )
    assert outcome.kind in {K.PASSED, K.FAILED, K.TRIPLE_FAULT, K.UNSUPPORTED, K.LIMIT}
