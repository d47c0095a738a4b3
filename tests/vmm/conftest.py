"""Tiny flat guests: assembled from a few lines, with tables ready to be switched on.

A guest starts in ring 0, unpaged, with its own GDT, IDT and stack. `PAGING` maps its first
4 MiB to themselves for ring 0 and ring 3. A vector without a handler of its own ends the
run as FAILED with 0x100 plus the vector.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from linker.link import link
from linker.script_parser import parse_script
from rombuilder.assembler import assemble_text
from vmi.symbols import assembler_symbols
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription, Run

LOAD = 0x100000
GDT, IDT, STUBS, TSS = 0x108000, 0x109000, 0x10A000, 0x10B000
DIRECTORY, TABLE = 0x10C000, 0x10D000
IMAGE_END = 0x10E000
STACK_TOP = 0x110000
USER_STACK_TOP = 0x111000
FREE = 0x200000
"""From here to 4 MiB a test may do as it likes."""

P, RW, US, A, D, PSE, G = 0x01, 0x02, 0x04, 0x20, 0x40, 0x80, 0x100
OPEN = P | RW | US | A | D

SYMBOLS = {
    "GDT": GDT,
    "IDT": IDT,
    "TSS": TSS,
    "DIRECTORY": DIRECTORY,
    "TABLE": TABLE,
    "STACK_TOP": STACK_TOP,
    "USER_STACK_TOP": USER_STACK_TOP,
    "FREE": FREE,
    "OPEN": OPEN,
    "KERNEL_CODE": 0x08,
    "KERNEL_DATA": 0x10,
    "USER_CODE": 0x1B,
    "USER_DATA": 0x23,
    "TASK": 0x28,
}

PRELUDE = """
	.text
	.balign 4
multiboot_header:
	.long 0x1badb002
	.long 0x00010000
	.long 0xe4514ffe
	.long multiboot_header
	.long multiboot_header
	.long 0
	.long 0
	.long boot

	.macro PAGING
	mov $DIRECTORY, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $0x80010000, %eax
	mov %eax, %cr0
	.endm

	.macro FINISH code
	mov $\\code, %eax
	mov $0x501, %edx
	outl %eax, (%dx)
	.byte 0xeb, 0xfe			# the engine goes on to the end of the block
	.endm

	.macro USER_MODE entry
	push $USER_DATA
	push $USER_STACK_TOP
	push $2
	push $USER_CODE
	push $\\entry
	iretl
	.endm

	.macro RING function, argument
	mov $\\function, %eax
	mov $\\argument, %ecx
	mov $DOORBELL_PORT, %edx
	outl %eax, (%dx)
	.endm

boot:
	mov $STACK_TOP, %esp
	lgdt gdt_pointer
	lidt idt_pointer
	push $KERNEL_CODE
	push $reloaded
	lret
reloaded:
	mov $USER_DATA, %eax
	mov %ax, %ds
	mov %ax, %es
	mov $KERNEL_DATA, %eax
	mov %ax, %ss
	mov $TASK, %eax
	ltr %ax
	jmp start
unexpected:
	mov $KERNEL_DATA, %eax
	mov %ax, %ds
	pop %eax
	add $0x100, %eax
	mov $0x501, %edx
	outl %eax, (%dx)
gdt_pointer:
	.word 6 * 8 - 1
	.long GDT
idt_pointer:
	.word 256 * 8 - 1
	.long IDT
"""

SCRIPT = """
SECTIONS {
	. = 0x100000;
	.text : { *(.text) } =0x90
	.data : { *(.data) }
	.bss : { *(.bss) }
}
"""


@dataclass(frozen=True)
class TinyGuest:
    """An image and where its labels are."""

    data: bytes
    labels: Mapping[str, int]


def gate(handler: int, *, selector: int = 0x08, kind: int = 0x8E) -> bytes:
    """An IDT entry; 0x8E is an interrupt gate for ring 0."""
    return struct.pack("<HHBBH", handler & 0xFFFF, selector, 0, kind, handler >> 16)


def make_guest(
    source: str,
    *,
    handlers: Mapping[int, str] | None = None,
    gates: Mapping[int, bytes] | None = None,
    pieces: Mapping[int, bytes] | None = None,
) -> TinyGuest:
    """Assemble `source`, which starts at `start`.

    `handlers` maps vectors to labels (gates open to ring 3), `gates` to raw IDT entries,
    `pieces` addresses below `IMAGE_END` to bytes that replace what is there.
    """
    unit = assemble_text(PRELUDE + source, symbols={**assembler_symbols(), **SYMBOLS})
    image = link([unit], parse_script(SCRIPT))
    labels = {label.name: label.address for label in image.labels}
    data = bytearray(image.data)
    assert len(data) <= GDT - LOAD
    data.extend(bytes(IMAGE_END - LOAD - len(data)))

    def put(address: int, content: bytes) -> None:
        data[address - LOAD : address - LOAD + len(content)] = content

    descriptors = [
        0,
        0x00CF9B000000FFFF,
        0x00CF93000000FFFF,
        0x00CFFB000000FFFF,
        0x00CFF3000000FFFF,
        0x0000890000000067 | (TSS & 0xFFFFFF) << 16 | (TSS >> 24) << 56,
    ]
    put(GDT, struct.pack("<6Q", *descriptors))
    put(TSS, struct.pack("<3I", 0, STACK_TOP, 0x10))
    put(TSS + 0x64, struct.pack("<I", 0x00680000))
    for vector in range(256):
        stub = STUBS + 10 * vector
        jump = (labels["unexpected"] - stub - 10) & 0xFFFFFFFF
        put(stub, struct.pack("<BIBI", 0x68, vector, 0xE9, jump))
        put(IDT + 8 * vector, gate(stub))
    for vector, label in (handlers or {}).items():
        put(IDT + 8 * vector, gate(labels[label], kind=0xEE))
    for vector, raw in (gates or {}).items():
        put(IDT + 8 * vector, raw)
    put(DIRECTORY, struct.pack("<I", TABLE | OPEN))
    put(TABLE, struct.pack("<1024I", *((4096 * i) | OPEN for i in range(1024))))
    for address, content in (pieces or {}).items():
        put(address, content)
    return TinyGuest(bytes(data), labels)


MakeGuest = Callable[..., TinyGuest]


@pytest.fixture(scope="session")
def tiny_guest() -> MakeGuest:
    return make_guest


@pytest.fixture(scope="session")
def make_machine() -> Callable[..., Machine]:
    """A machine with a tiny guest in 4 MiB; keywords as `MachineDescription`."""

    def make(guest: TinyGuest, **about: Any) -> Machine:
        about.setdefault("memory", 4 << 20)
        about.setdefault("max_instructions", 2_000_000)
        return Machine(MachineDescription(guest.data, **about))

    return make


@pytest.fixture(scope="session")
def run_guest(make_machine: Callable[..., Machine]) -> Callable[..., Run]:
    """Assemble a source and run it; keywords as `make_guest` and `MachineDescription`."""

    def run(source: str, *, passes: bool = True, **about: Any) -> Run:
        parts = {key: about.pop(key, None) for key in ("handlers", "gates", "pieces")}
        result = make_machine(make_guest(source, **parts), **about).run()
        if passes:
            assert result.outcome.kind is OutcomeKind.PASSED, result
        return result

    return run
