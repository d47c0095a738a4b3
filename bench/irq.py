"""What an interrupt costs in exits, by the way it takes to the processor.

A guest without a kernel takes interrupts from a source outside it, so that nothing but
the interrupt is counted: its delivery, and what the guest does to end it. Two
runs with different numbers of interrupts give the cost of one; what both have in
common, such as setting up, falls out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from linker.link import link
from linker.script_parser import parse_script
from rombuilder.assembler import assemble_text
from rombuilder.rom import Flavour, build_rom
from vmi.symbols import assembler_symbols
from vmm.core.errors import VmmError
from vmm.core.policy import POLICIES, Policy
from vmm.machine import Machine, MachineDescription, Run

__all__ = ["IrqCost", "Route", "measure_irq"]

_IRQ = 5
_VECTOR = 0x45
"""Of a base that an 8259 can have, and `_IRQ`."""
_MSI_ADDRESS = 0xFEE00000
_PERIOD_NS = 20_000
_FIRST_NS = 1_000_000
_SETTING_UP = 10
"""Interrupts in the run that is subtracted."""


class Route(StrEnum):
    """How an interrupt gets to the processor."""

    PIC = "PIC"
    """By the 8259s, ended by a store to a port."""
    IOAPIC = "IOAPIC"
    """By the I/O APIC, edge-triggered, ended at the local APIC."""
    MSI = "MSI"
    """By a message of the device's own, ended at the local APIC."""


@dataclass(frozen=True, slots=True)
class IrqCost:
    """Exits of one interrupt, all and by reason; `rom_calls` says how it was ended."""

    route: Route
    rom_calls: bool
    interrupts: int
    exits: float
    light: float
    heavy: float
    by_reason: dict[str, float]


_SCRIPT = """
SECTIONS {
	. = 0x100000;
	.text : { *(.text) } =0x90
}
"""

_SOURCE = """
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
	.long start

	.set STACK, 0x180000
	.set IDT, 0x190000
	.set TAKEN, 0x1a0000
	.set ROM, 0xc0000
	.set APIC, 0xfee00000
	.set IOAPIC, 0xfec00000

start:	mov $STACK, %esp
	lidt idt_pointer
	mov $irq, %eax
	mov %eax, %edx
	and $0xffff, %eax
	mov %cs, %ecx
	shl $16, %ecx
	or %ecx, %eax
	mov %eax, IDT + 8 * VECTOR
	and $0xffff0000, %edx
	or $0x8e00, %edx
	mov %edx, IDT + 8 * VECTOR + 4
.if ROM_CALLS
	mov $ROM + VMI_INIT_OFFSET, %eax
	call *%eax
	mov $CALL_APICWrite, %eax
	mov $ROM + VMI_GET_RELOC_OFFSET, %ecx
	call *%ecx
	cmp $RELOC_CALL_REL, %dl
	jne fail
	mov %eax, %ebp
.endif
.if BY_PIC
	mov $0x11, %al
	outb %al, $0x20
	mov $VECTOR - 5, %al			# the base, for input 5
	outb %al, $0x21
	mov $0x04, %al
	outb %al, $0x21
	mov $0x01, %al
	outb %al, $0x21
	mov $0xdf, %al
	outb %al, $0x21
.else
	movl $0x1ff, APIC + 0xf0
	movl $0x10700, APIC + 0x350
.endif
.if BY_IOAPIC
	movl $0x1b, IOAPIC
	movl $0, IOAPIC + 0x10
	movl $0x1a, IOAPIC
	movl $VECTOR, IOAPIC + 0x10
.endif
	sti
1:	cmpl $COUNT, TAKEN
	jb 1b
	cli
	xor %eax, %eax
	jmp end
fail:	mov $1, %eax
end:	mov $0x501, %edx
	out %eax, (%dx)
2:	jmp 2b

irq:	incl TAKEN
.if BY_PIC
	mov $0x20, %al
	outb %al, $0x20
.elseif ROM_CALLS
	mov $0xb0, %eax
	xor %edx, %edx
	call *%ebp
.else
	movl $0, APIC + 0xb0
.endif
	iretl

	.balign 8
idt_pointer:
	.word 256 * 8 - 1
	.long IDT
"""


def _guest(route: Route, count: int, *, rom_calls: bool) -> bytes:
    symbols = {
        **assembler_symbols(),
        "VECTOR": _VECTOR,
        "COUNT": count,
        "BY_PIC": int(route is Route.PIC),
        "BY_IOAPIC": int(route is Route.IOAPIC),
        "ROM_CALLS": int(rom_calls),
    }
    return bytes(link([assemble_text(_SOURCE, symbols=symbols)], parse_script(_SCRIPT)).data)


def _run(route: Route, count: int, policy: Policy, *, rom_calls: bool) -> Run:
    """Take `count` interrupts; raises `VmmError` if the guest does not."""
    machine = Machine(
        MachineDescription(
            _guest(route, count, rom_calls=rom_calls),
            rom=build_rom(Flavour.BATCHING).data if rom_calls else None,
            policy=policy,
            apic=route is not Route.PIC,
        )
    )
    wire = machine.pc.wire(_IRQ)

    def pulse() -> None:
        wire.level = False
        wire.level = True

    def message() -> None:
        machine.bus.msi(_MSI_ADDRESS, _VECTOR)

    ask: Callable[[], None] = message if route is Route.MSI else pulse
    for number in range(count):
        machine.timers.at(_FIRST_NS + number * _PERIOD_NS, ask)
    run = machine.run()
    if not run.outcome.ok:
        raise VmmError(f"{count} interrupts by {route}: {run.outcome}")
    return run


def measure_irq(
    interrupts: int, policy: Policy = POLICIES[0], tell: Callable[[str], None] | None = None
) -> list[IrqCost]:
    """The exits of one interrupt, by each route, over so many of them.

    Those that end at the local APIC are measured with its registers and with the batching
    ROM's APICWrite. Exact, and the same each time.
    """
    rows = []
    for route in Route:
        for rom_calls in (False,) if route is Route.PIC else (False, True):
            if tell is not None:
                tell(f"{route}{', ROM' if rom_calls else ''}")
            base = _run(route, _SETTING_UP, policy, rom_calls=rom_calls).ledger
            more = _run(route, _SETTING_UP + interrupts, policy, rom_calls=rom_calls).ledger
            by_reason = {
                reason.value: (
                    row.count - (base.by_reason[reason].count if reason in base.by_reason else 0)
                )
                / interrupts
                for reason, row in more.by_reason.items()
            }
            rows.append(
                IrqCost(
                    route,
                    rom_calls,
                    interrupts,
                    (more.total - base.total) / interrupts,
                    (more.light - base.light) / interrupts,
                    (more.heavy - base.heavy) / interrupts,
                    {name: each for name, each in by_reason.items() if each},
                )
            )
    return rows
