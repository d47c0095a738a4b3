"""Can a processor begin in a state that a guest has made up?"""

from vmi.apstate import ApState

__all__ = ["check_start"]

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
