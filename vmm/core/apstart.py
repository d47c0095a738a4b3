"""Can a processor begin in a state that a guest has made up? Then let it."""

from vmi.apstate import ApState
from vmm.core.errors import TripleFault
from vmm.core.vcpu import Vcpu

__all__ = ["begin_in", "check_start"]

# In the order of CpuState.
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr")
_GENERAL = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
_CS, _SS, _LDT, _GDT, _IDT = 1, 2, 6, 8, 9
_PRESENT, _MEMORY, _CODE, _RIGHT = 0x8000, 0x1000, 0x800, 0x200
_LDT_TYPE = 0x200

_PE = 0x1
_VM86 = 0x20000
_EFER = 0x801
"""SYSCALL and no-execute; there is no long mode."""
_RPL, _LOCAL = 3, 4


def check_start(state: ApState) -> None:
    """Raises `ValueError` with what is wrong, where a 32-bit processor cannot begin so.

    Segments have to come out of the GDT; whether its descriptors are any good is found
    out when they are loaded.
    """
    if not state.cr0 & _PE:
        raise ValueError(f"CR0 {state.cr0:#x}: real mode, which start-up by INIT is for")
    if state.efer & ~_EFER:
        raise ValueError(f"EFER {state.efer:#x}: bits {state.efer & ~_EFER:#x} do not exist here")
    if state.eflags & _VM86:
        raise ValueError(f"EFLAGS {state.eflags:#x}: no processor begins in virtual-8086 mode")
    for name, needed in (
        *(("cs", True), ("ss", True), ("ds", False)),
        *(("es", False), ("fs", False), ("gs", False), ("ldtr", False)),
    ):
        selector = getattr(state, name)
        if not selector & ~_RPL:
            if needed:
                raise ValueError(f"{name.upper()} is the null selector {selector:#x}")
        elif selector & _LOCAL:
            raise ValueError(f"{name.upper()} {selector:#x} is of an LDT")
        elif (selector | 7) > state.gdtr_limit:
            raise ValueError(
                f"{name.upper()} {selector:#x} is beyond the GDT's limit {state.gdtr_limit:#x}"
            )
    if (state.cs ^ state.ss) & _RPL or state.cs & _RPL:
        raise ValueError(f"CS {state.cs:#x} and SS {state.ss:#x} are not of ring 0")


def begin_in(vcpu: Vcpu, state: ApState) -> None:
    """Let a CPU that has had its INIT begin in a state that `check_start` has passed.

    Raises `TripleFault`, as a processor shuts down, where a segment cannot be loaded from
    the GDT by the state's own page tables.
    """
    vcpu.initialise(0)
    cpu = vcpu.cpu
    vcpu.privileged.begin_with(state.cr0, state.cr3, state.cr4, state.efer)
    cpu.set_cr2(state.cr2)
    cpu.load_table(_GDT, state.gdtr_base, state.gdtr_limit)
    cpu.load_table(_IDT, state.idtr_base, state.idtr_limit)
    for number, name in enumerate(_SEGMENTS):
        selector = getattr(state, name)
        if not selector & ~_RPL:
            cpu.load_segment(number, 0, 0, 0)
            continue
        low, high = _descriptor(vcpu, state.gdtr_base + (selector & ~7), name)
        if not _suits(number, high):
            raise TripleFault(f"CPU {vcpu.index} cannot start: {name.upper()} {selector:#x}")
        cpu.load_segment(number, selector, low, high)
    for number, name in enumerate(_GENERAL):
        cpu.set_reg(number, getattr(state, name))
    cpu.set_eflags(state.eflags | 2)
    cpu.enter_ring(0)
    cpu.set_eip(state.eip)


def _descriptor(vcpu: Vcpu, address: int, name: str) -> tuple[int, int]:
    words = []
    for offset in (0, 4):
        physical = vcpu.paging.translate((address + offset) & 0xFFFFFFFF, False, False)
        if physical < 0:
            raise TripleFault(
                f"CPU {vcpu.index} cannot start: descriptor of {name.upper()} at {address:#010x} "
                "is not mapped"
            )
        words.append(vcpu.memory.read32(physical))
    return words[0], words[1]


def _suits(segment: int, high: int) -> bool:
    """May this register hold a segment of this type?"""
    if not high & _PRESENT:
        return False
    if segment == _LDT:
        return high & 0x1F00 == _LDT_TYPE
    if segment == _CS:
        return high & (_MEMORY | _CODE) == _MEMORY | _CODE
    if segment == _SS:
        return high & (_MEMORY | _CODE | _RIGHT) == _MEMORY | _RIGHT
    return bool(high & _MEMORY and (not high & _CODE or high & _RIGHT))
