"""XCHG with memory, made atomic between host threads.

For a locked instruction in a block that is translated for several threads
(`vmm.core.cpu.sharedcpu`) the engine calls a helper, which uses the host's own locked
instruction - but for XCHG: there Unicorn 2.1.4 loads, then stores, where the QEMU that it
is built on has an atomic exchange (`xchg` in qemu/accel/tcg/atomic_template.h of both). So
the end of each of these helpers is replaced by one that exchanges. The host's XCHG with
memory always locks (SDM vol. 3, section 8.1.2.1).

Only the one build whose code is exactly as expected is changed, and only in this process;
no block that is translated for one thread ever calls these helpers.
"""

import ctypes
import mmap
from functools import cache

from vmm.core.errors import EngineFailure
from vmm.engine.calibration import address_of

__all__ = ["make_exchange_atomic"]

_TAILS = {
    # movzbl (%rax),%edx; mov %bl,(%rax); pop %rbx; movzbl %dl,%eax; ret
    # becomes xchg %bl,(%rax); movzbl %bl,%eax; pop %rbx; ret
    "helper_atomic_xchgb_x86_64": ("0fb610 8818 5b 0fb6c2 c3", "8618 0fb6c3 5b c3"),
    # movzwl (%rax),%edx; mov %bx,(%rax); pop %rbx; movzwl %dx,%eax; ret
    # becomes xchg %bx,(%rax); movzwl %bx,%eax; pop %rbx; ret
    "helper_atomic_xchgw_le_x86_64": ("0fb710 668918 5b 0fb7c2 c3", "668718 0fb7c3 5b c3"),
    # mov (%rax),%r8d; mov %ebx,(%rax); pop %rbx; mov %r8d,%eax; ret
    # becomes xchg %ebx,(%rax); mov %ebx,%eax; pop %rbx; ret
    "helper_atomic_xchgl_le_x86_64": ("448b00 8918 5b 4489c0 c3", "8718 89d8 5b c3"),
}
_TAIL_AT = 15
"""Behind push %rbx; mov %edx,%ebx; mov %ecx,%edx; mov 8(%rsp),%rcx; call atomic_mmu_lookup."""
_HEAD = bytes.fromhex("53 89d3 89ca 488b4c2408 e8")
_READ, _WRITE, _EXECUTE = mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC


@cache
def make_exchange_atomic() -> None:
    """Replace the helpers, once a process.

    Raises `EngineFailure`, with nothing changed, for code that is not as expected, and where
    the host lets nobody change code.
    """
    changes = []
    for name, (found, wanted) in _TAILS.items():
        start = address_of(name)
        expected, tail = bytes.fromhex(found), bytes.fromhex(wanted)
        code = ctypes.string_at(start, _TAIL_AT + len(expected))
        if not (code.startswith(_HEAD) and code.endswith(expected)):
            raise EngineFailure(
                f"XCHG cannot be made atomic between threads: {name} is {code.hex(' ')}"
            )
        changes.append((start + _TAIL_AT, tail))
    for at, tail in changes:
        _replace(at, tail)


def _replace(at: int, code: bytes) -> None:
    """Overwrite code of the engine's library, in this process's own copy of the page."""
    first = at & -mmap.PAGESIZE
    size = at + len(code) - first
    _protect(first, size, _READ | _WRITE | _EXECUTE)
    ctypes.memmove(at, code, len(code))
    _protect(first, size, _READ | _EXECUTE)


def _protect(start: int, size: int, rights: int) -> None:
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    if protect(ctypes.c_void_p(start), ctypes.c_size_t(size), ctypes.c_int(rights)):
        error = OSError(ctypes.get_errno(), "mprotect")
        raise EngineFailure(f"XCHG cannot be made atomic between threads: {error}")
