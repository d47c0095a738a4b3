"""Let a processor begin in a state that a guest has made up."""

from vmi.apstate import ApState
from vmm.core.cpu.vcpu import Vcpu
from vmm.core.errors import TripleFault

__all__ = ["begin_in"]

# In the order of CpuState.
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr")
_GENERAL = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
_CS, _SS, _LDT, _GDT, _IDT = 1, 2, 6, 8, 9
_PRESENT, _MEMORY, _CODE, _RIGHT = 0x8000, 0x1000, 0x800, 0x200
_LDT_TYPE = 0x200
_RPL = 3


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
