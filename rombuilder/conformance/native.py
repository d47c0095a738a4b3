"""What each call stands for, as instructions that a kernel without VMI has in its place."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from rombuilder.assembler import assemble_text

__all__ = ["NATIVE", "native_code"]

_STORE_DESCRIPTOR = "mov %ecx, (%eax,%edx,8)\n mov 4(%esp), %ecx\n mov %ecx, 4(%eax,%edx,8)"
_NOTHING = ""

NATIVE: Mapping[str, str] = MappingProxyType(
    {
        "CPUID": "cpuid",
        "WRMSR": "wrmsr",
        "RDMSR": "rdmsr",
        "SetGDT": "lgdt (%eax)",
        "SetLDT": "lldt %ax",
        "SetIDT": "lidt (%eax)",
        "SetTR": "ltr %ax",
        "GetGDT": "sgdt (%eax)",
        "GetLDT": "sldt %ax",
        "GetIDT": "sidt (%eax)",
        "GetTR": "str %ax",
        "WriteGDTEntry": _STORE_DESCRIPTOR,
        "WriteLDTEntry": _STORE_DESCRIPTOR,
        "WriteIDTEntry": _STORE_DESCRIPTOR,
        "UpdateKernelStack": _NOTHING,
        "SetCR0": "mov %eax, %cr0",
        "SetCR2": "mov %eax, %cr2",
        "SetCR3": "mov %eax, %cr3",
        "SetCR4": "mov %eax, %cr4",
        "GetCR0": "mov %cr0, %eax",
        "GetCR2": "mov %cr2, %eax",
        "GetCR3": "mov %cr3, %eax",
        "GetCR4": "mov %cr4, %eax",
        "WBINVD": "wbinvd",
        # The number is part of the instruction: the one for the state is chosen by a jump.
        "SetDR": "\n".join(
            f"cmp ${n}, %eax\n jne {n}f\n mov %edx, %dr{n}\n ret\n{n}:" for n in (0, 1, 2, 3, 6, 7)
        ),
        "GetDR": "\n".join(
            f"cmp ${n}, %eax\n jne {n}f\n mov %dr{n}, %eax\n ret\n{n}:" for n in (0, 1, 2, 3, 6, 7)
        ),
        "RDPMC": "rdpmc",
        "RDTSC": "rdtsc",
        "CLTS": "clts",
        "EnableInterrupts": "sti",
        "DisableInterrupts": "cli",
        "GetInterruptMask": "pushfl\n pop %eax",
        "SetInterruptMask": "push %eax\n popfl",
        "IRET": "iretl",
        "SYSEXIT": "sti\n sysexit",
        "Halt": "sti\n hlt",
        "Reboot": "movb $0xfe, %al\n outb %al, $0x64",
        "Shutdown": "cli\n hlt",
        "SetPxE": "mov %eax, (%edx)",
        "SetPxELong": "mov %edx, 4(%ecx)\n mov %eax, (%ecx)",
        "UpdatePxE": _NOTHING,
        "UpdatePxELong": _NOTHING,
        "MachineToPhysical": _NOTHING,
        "PhysicalToMachine": _NOTHING,
        "AllocatePage": _NOTHING,
        "ReleasePage": _NOTHING,
        "InvalPage": "invlpg (%eax)",
        "FlushTLB": "mov %cr3, %eax\n mov %eax, %cr3",
        "SetLinearMapping": _NOTHING,
        "IN": "inl %dx, %eax",
        "INB": "inb %dx, %al",
        "INW": "inw %dx, %ax",
        "INS": "rep insl",
        "INSB": "rep insb",
        "INSW": "rep insw",
        "OUT": "outl %eax, %dx",
        "OUTB": "outb %al, %dx",
        "OUTW": "outw %ax, %dx",
        "OUTS": "rep outsl",
        "OUTSB": "rep outsb",
        "OUTSW": "rep outsw",
        "SetIOPLMask": (
            "pushfl\n pop %edx\n and $0xffffcfff, %edx\n or %eax, %edx\n push %edx\n popfl"
        ),
        "SetInitialAPState": _NOTHING,
        "APICWrite": "mov %edx, (%eax)",
        "APICRead": "mov (%eax), %eax",
        "IODelay": "outb %al, $0x80",
        "SetLazyMode": _NOTHING,
    }
)
"""AT&T source by call; a RET follows. Calls without an entry have no native counterpart."""


@cache
def native_code() -> Mapping[str, bytes]:
    """The instructions of `NATIVE`, assembled, RET included."""
    return MappingProxyType(
        {
            name: assemble_text(f"{text}\n ret").section(".text").data
            for name, text in NATIVE.items()
        }
    )
