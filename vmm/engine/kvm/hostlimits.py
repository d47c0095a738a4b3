"""Tell a guest that crashed from one that needs what this host cannot do.

Where KVM cannot page in 32-bit mode, the MOV to CR0 that turns paging on is a general
protection fault; in a guest without an IDT that shuts the virtual machine down, as any triple
fault does. The instruction that it stands on gives it away.
"""

from collections.abc import Callable

from vmm.core.errors import BadDescription
from vmm.engine.kvm.probe import probe
from vmm.engine.kvm.registers import RegisterFile

__all__ = ["HostCannot", "check_paging", "paging_hint", "require"]

_CR0_PG = 1 << 31
_CR4_PAE = 1 << 5
_EFER_LME = 1 << 8
_MOV_TO_CR = b"\x0f\x22"
_BY_ENCODING = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")


class HostCannot(BadDescription):
    """The guest is sound, but KVM on this host lacks something that it needs."""


def require(*names: str) -> None:
    """Raise `HostCannot` unless the host has all of these abilities."""
    found = {ability.name: ability for ability in probe()}
    for name in names:
        ability = found[name]
        if not ability.available:
            raise HostCannot(
                f"the guest needs {ability.summary}, which KVM on this host cannot do "
                f"({ability.detail}); see `vmirom engines`, or use --engine unicorn"
            )


def paging_hint() -> list[str]:
    """What to tell beside a guest that failed: one with an IDT met a fault it could handle."""
    lacking = [
        ability.name
        for ability in probe()
        if ability.name in {"paging_32", "paging_pae", "unpaged_interrupts"}
        and not ability.available
    ]
    if not lacking:
        return []
    lacks = f"KVM on this host lacks {', '.join(lacking)} (see `vmirom engines`)"
    return [f"{lacks}: a guest that needs that fails here, and not on engine unicorn"]


def check_paging(registers: RegisterFile, read: Callable[[int, int], bytes]) -> None:
    """Raise `HostCannot` if a shutdown was the attempt to turn on paging.

    `read` answers code at a linear address.
    """
    rip, base, cr4, efer = registers.named("rip", "cs.base", "cr4", "efer")
    code = read((rip + base) & 0xFFFFFFFF, 3)
    if len(code) < 3 or code[:2] != _MOV_TO_CR or code[2] & 0xF8 != 0xC0:
        return
    if not registers.named(_BY_ENCODING[code[2] & 7])[0] & _CR0_PG:
        return
    if efer & _EFER_LME:
        require("long_mode")
    elif cr4 & _CR4_PAE:
        require("paging_pae")
    else:
        require("paging_32")
