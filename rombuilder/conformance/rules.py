"""The rules: what each says, and where it comes from."""

from dataclasses import dataclass

__all__ = ["RULES", "Problem", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the interface. `source` is a specification or a file of Linux 2.6.32."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A rule that was broken, by its key in `RULES`, and how."""

    code: str
    text: str


_CLIENT = "Linux arch/x86/kernel/vmi_32.c"
_HEADER = "Linux arch/x86/include/asm/vmi.h"
_PROPOSAL = "Paravirtualization API Version 2.0"
_ABI = "System V ABI, Intel386 supplement, 3-9 to 3-12, with regparm(3)"

RULES = {
    "result": Rule("A call answers what the native instruction answers.", _PROPOSAL),
    "memory": Rule(
        "A call writes what the native instruction writes, and nothing else but its stack.",
        _PROPOSAL,
    ),
    "effect": Rule(
        "A call has the effects on the processor and on ports that the native one has.", _PROPOSAL
    ),
    "register": Rule(
        "A call keeps every register but those that its caller gives up.",
        f"{_CLIENT}, vmi_patch; Linux arch/x86/include/asm/paravirt.h; {_PROPOSAL}",
    ),
    "stack": Rule("A call leaves the stack pointer where the native instruction does.", _ABI),
    "direction-flag": Rule("A call leaves DF as it was.", _ABI),
    "interrupt-flag": Rule(
        "A call leaves IF as the native instruction does.", f"{_CLIENT}, vmi_ops; {_PROPOSAL}"
    ),
    "flags": Rule("A call leaves IOPL, TF and NT as the native instruction does.", _PROPOSAL),
    "segment": Rule("A call leaves the segment registers as they were.", _ABI),
    "data-segment": Rule(
        "The interrupt-flag calls, IRET and SYSEXIT use no memory through DS or ES.",
        f"{_CLIENT}, vmi_patch; arch/x86/kernel/entry_32.S, resume_userspace; {_PROPOSAL}",
    ),
    "ring": Rule(
        "IRET and SYSEXIT go where the native instruction goes: address, ring and stack.",
        "Intel SDM vol. 2, IRET and SYSEXIT; Linux arch/x86/kernel/entry_32.S",
    ),
    "interrupt-window": Rule(
        "Interrupts do not come on inside a call; STI only just before SYSEXIT, IRET or HLT.",
        f"{_PROPOSAL}, SYSEXIT and Halt; Linux arch/x86/kernel/entry_32.S, sysexit path",
    ),
    "image-write": Rule(
        "The image is write-protected after POST, so the ROM does not write to it.",
        "PCI Firmware Specification 3.0, 5.2.1.7; SeaBIOS src/fw/shadow.c, make_bios_readonly",
    ),
    "absolute-address": Rule(
        "The ROM runs wherever firmware and guest put it, so it uses no absolute address.",
        f"{_CLIENT}, probe_vmi_rom: isa_bus_to_virt(base)",
    ),
    "access": Rule("A call uses no memory but its arguments, its stack and the image.", _PROPOSAL),
    "exception": Rule("A call raises no interrupt or exception.", _PROPOSAL),
    "recursion": Rule("A call needs a bounded amount of kernel stack.", _PROPOSAL),
    "runaway": Rule("A call ends.", _PROPOSAL),
    "reset": Rule("Reboot resets the machine.", f"{_PROPOSAL}, Reboot"),
    "stop": Rule("Shutdown stops the machine for good.", f"{_PROPOSAL}, Shutdown"),
    "dropped": Rule(
        "NOP is for operations that may be dropped.", f"{_CLIENT}, para_fill and patch_internal"
    ),
    "emulator": Rule("A call can be executed.", "this checker"),
    "vmi-init": Rule(
        "vmi_init answers 0 and is otherwise an ordinary C function.",
        f"{_CLIENT}, vmi_init and call_vrom_func",
    ),
    "get-reloc": Rule(
        "get_reloc is an ordinary C function: it keeps EBX, ESI, EDI, EBP, DF and IF.",
        f"{_CLIENT}, call_vrom_long_func; {_ABI}",
    ),
    "relocation-kind": Rule(
        "get_reloc answers kind 0 to 3.", f"{_HEADER}, VMI_RELOCATION_*; {_CLIENT}, patch_internal"
    ),
    "relocation-address": Rule("A call or jump leads into the image.", f"{_CLIENT}, patch_offset"),
    "relocation-moves": Rule(
        "Kinds and offsets do not depend on where the image lies.", f"{_CLIENT}, probe_vmi_rom"
    ),
    "unknown-call": Rule("Numbers that name no call are answered NONE.", f"{_HEADER}, VMI_CALL_*"),
    "must-patch": Rule(
        "IRET and SYSEXIT are answered JUMP_REL: the guest's own way is gone.",
        f"{_CLIENT}, activate_vmi: pv_cpu_ops.iret and irq_enable_sysexit",
    ),
    "jump": Rule("Only IRET and SYSEXIT are answered JUMP_REL.", f"{_CLIENT}, vmi_get_function"),
    "timer-group": Rule(
        "Calls 66 to 70 are offered together or not at all.",
        "Linux arch/x86/kernel/vmi_32.c, activate_vmi; vmiclock_32.c, vmi_timer_ops",
    ),
}
"""Every rule that running a ROM can break, by a stable key; headers have their own."""
