"""Find the guest CPU's state inside a Unicorn engine, by looking.

Unicorn 2.1.4 is built on a QEMU whose x86 target can run a guest under AMD-V
intercepts, but offers no call to set them, and reading registers through its API
costs microseconds. Both are solved by working on the CPU state in place. Nothing
here trusts an offset from a header: magic values are written through the public
API and looked for, and the result is tested before it is used.
"""

import ctypes
import os
import re
import struct
from dataclasses import dataclass

from unicorn import Uc
from unicorn import unicorn_const as const
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from vmm.core.errors import EngineFailure

WALKER = "x86_cpu_tlb_fill_x86_64"
"""The page walker that fills the TLB, as Unicorn exports it."""

__all__ = [
    "WALKER",
    "StateLocation",
    "address_of",
    "data_of",
    "engine_handle",
    "library",
    "locate_state",
    "locate_walker",
    "trust_memory",
]

_MAGIC_DR = (0x11223344, 0x55667788, 0x19AABBCC, 0x0DDEEFF0)
_MAGIC_EIP = 0x7A6B5C4D
_MAGIC_SYSENTER = (0x3C4D, 0x2B3C4D5E, 0x3C4D5E6F)
_SYSENTER_CS = 0x174
"""First of the three model-specific registers: CS, ESP, EIP."""

_EIP_OFFSET = 128
"""EIP follows the sixteen general registers of QEMU's CPUX86State."""
_MATCH = 400
_PROBE = 0x10000
_CPU_BYTES = 0x10000
"""No less than the CPU object."""
_HANDLE_BYTES = 8192
_READS_FLAG = re.compile(rb"\A\x48\x8b[\x80-\xbf](?s:.{4})\x80[\xb8-\xbf](?s:(.{4}))\x00")
"""mov off(%reg),%reg; cmpb $0,flag(%reg)."""
_LOOK = 32
_HOOK_BYTES = 56
"""Of the structure that a hook's handle points to, up to the callback's data."""
_CPU_HEAD = 32
"""Two counts, a pointer, seven flags, cflags_next_tb: QEMU 5.0, include/hw/core/cpu.h."""


@dataclass(frozen=True, slots=True)
class StateLocation:
    """Host address of the CPU state and offsets, in bytes, of the fields that AMD-V mode needs.

    `cpu` is the address of the CPU object that the state lies in, `next_flags` that of its
    field cflags_next_tb.
    """

    cpu: int
    next_flags: int
    address: int
    error_code: int
    hflags: int
    vmcb: int
    tsc_offset: int
    intercepts: int
    cr_read: int
    cr_write: int
    dr_read: int
    dr_write: int
    exceptions: int
    sysenter: int


def _read_self(address: int, size: int) -> bytes:
    """Read our own memory; empty where nothing is mapped, instead of a crash."""
    with open("/proc/self/mem", "rb", buffering=0) as memory:  # noqa: PTH123 - unbuffered
        try:
            return os.pread(memory.fileno(), size, address)
        except (OSError, OverflowError):
            return b""


def _saved_context(uc: Uc) -> bytes:
    context = uc.context_save()
    address = ctypes.cast(context.context, ctypes.c_void_p).value
    if address is None:
        raise EngineFailure("Unicorn gave an empty context")
    return ctypes.string_at(address, context.size)


def _find_once(data: bytes, pattern: bytes, what: str) -> int:
    at = data.find(pattern)
    if at < 0 or data.find(pattern, at + 1) >= 0:
        raise EngineFailure(f"calibration: {what} not found exactly once in the saved context")
    return at


def locate_state(uc: Uc) -> StateLocation:
    """Calibrate on an engine that has not run yet.

    Raises `EngineFailure` when this build of Unicorn does not look as expected.
    """
    for i, magic in enumerate(_MAGIC_DR):
        uc.reg_write(x86.UC_X86_REG_DR0 + i, magic)
    uc.reg_write(x86.UC_X86_REG_EIP, _MAGIC_EIP)
    for i, magic in enumerate(_MAGIC_SYSENTER):
        uc.msr_write(_SYSENTER_CS + i, magic)
    context = _saved_context(uc)
    # CS is 32 bits wide and ESP, as 64 bits, aligned after it.
    code, stack, entry = _MAGIC_SYSENTER
    sysenter = _find_once(context, struct.pack("<QQ", stack, entry), "SYSENTER registers") - 8
    if context[sysenter : sysenter + 8].find(struct.pack("<I", code)) < 0:
        raise EngineFailure("calibration: SYSENTER_CS is not where it was expected")
    sysenter += context[sysenter : sysenter + 8].find(struct.pack("<I", code))
    debug = _find_once(context, struct.pack("<4Q", *_MAGIC_DR), "DR0-DR3")
    base = _find_once(context, struct.pack("<Q", _MAGIC_EIP), "EIP") - _EIP_OFFSET
    debug -= base
    sysenter -= base
    cpu, address, next_flags = _live_address(uc, context[base : base + _MATCH])
    for i in range(4):
        uc.reg_write(x86.UC_X86_REG_DR0 + i, 0)
    uc.reg_write(x86.UC_X86_REG_EIP, 0)
    for i in range(3):
        uc.msr_write(_SYSENTER_CS + i, 0)
    # From here on the order of fields in CPUX86State counts: error_code,
    # exception_is_int and exception_next_eip precede dr[8]; the breakpoint union,
    # old_exception, vm_vmcb, tsc_offset and the intercept words follow it.
    return StateLocation(
        cpu=cpu,
        next_flags=next_flags,
        address=address,
        error_code=debug - 16,
        hflags=176,
        vmcb=debug + 64 + 40,
        tsc_offset=debug + 64 + 48,
        intercepts=debug + 64 + 56,
        cr_read=debug + 64 + 64,
        cr_write=debug + 64 + 66,
        dr_read=debug + 64 + 68,
        dr_write=debug + 64 + 70,
        exceptions=debug + 64 + 72,
        sysenter=sysenter,
    )


def _live_address(uc: Uc, pattern: bytes) -> tuple[int, int, int]:
    """The CPU object, its state, its cflags_next_tb: follow each pointer in the engine's handle.

    The CPU object holds a pointer to its own state and begins as one does. A stray copy of the
    state, in memory that was freed, may lie behind other pointers, with a pointer to it near.
    """
    handle = _read_self(engine_handle(uc), _HANDLE_BYTES)
    best: tuple[int, int, int] | None = None
    nearest = _PROBE
    for offset in range(0, len(handle) - 7, 8):
        (pointer,) = struct.unpack_from("<Q", handle, offset)
        if pointer < 0x10000 or pointer & 7:
            continue
        near = _read_self(pointer, _PROBE)
        at = near.find(pattern)
        flags = _next_flags_in(near[:_CPU_HEAD])
        if at < 0 or flags is None or struct.pack("<Q", pointer + at) not in near:
            continue
        if at < nearest:
            best, nearest = (pointer, pointer + at, pointer + flags), at
    if best is None:
        raise EngineFailure("calibration: the CPU state was not found behind the engine's handle")
    return best


def _next_flags_in(head: bytes) -> int | None:
    """Where a CPU object has cflags_next_tb: -1, behind seven flags, which are bytes.

    None if this is no such object. The self-test sees that it does what it should.
    """
    at = head.find(b"\xff\xff\xff\xff")
    if at < 8 or at & 3 or any(byte > 1 for byte in head[at - 8 : at]):
        return None
    return at


def locate_walker(uc: Uc, cpu: int) -> int:
    """The host address of the pointer to the page walker that fills the TLB.

    Unicorn's public choice of a TLB changes it: it is the one pointer in the CPU object that
    goes from the processor's own walker to another function and back. Raises `EngineFailure`
    where there is none.
    """
    own = address_of(WALKER)
    uc.ctl_set_tlb_mode(const.UC_TLB_VIRTUAL)
    before = _read_self(cpu, _CPU_BYTES)
    uc.ctl_set_tlb_mode(const.UC_TLB_CPU)
    after = _read_self(cpu, _CPU_BYTES)
    found = [
        offset
        for offset in range(0, len(after) - 7, 8)
        if struct.unpack_from("<Q", after, offset)[0]
        == own
        != struct.unpack_from("<Q", before, offset)[0]
    ]
    if len(found) != 1:
        raise EngineFailure(f"calibration: {len(found)} pointers to {WALKER}, expected one")
    return cpu + found[0]


def address_of(name: str) -> int:
    """Where a function of Unicorn's library lies; raises `EngineFailure` where it exports none."""
    function = getattr(library(), name, None)
    address = None if function is None else ctypes.cast(function, ctypes.c_void_p).value
    if address is None:
        raise EngineFailure(f"Unicorn exports no {name}")
    return address


def data_of(hook: ctypes.c_size_t, callback: tuple[int, int]) -> int:
    """Where a hook has the data of its callback: behind the callback's address.

    `callback` is both. The data is compiled into what calls back. Raises `EngineFailure` for a
    hook that has them elsewhere.
    """
    assert hook.value is not None  # noqa: S101 - nobody adds a hook at 0
    raw = ctypes.string_at(hook.value, _HOOK_BYTES)
    at = raw.find(struct.pack("<2Q", *callback))
    if at < 0 or at % 8:
        raise EngineFailure("Unicorn's hook has its callback and its data in unknown places")
    return hook.value + at + 8


def trust_memory(uc: Uc, check: int) -> None:
    """Leave out the look at a stop request after each load and store of the guest.

    Unicorn compiles a call there, so that a memory hook can end the run at once. We
    have no such hooks, and the same look at the start of every block stays. The flag that
    `check`, the address of the function that compiles the call, tests first is this:
    its place is read from that function's own code. Raises `EngineFailure` when the
    code is not as expected.
    """
    code = _read_self(check, _LOOK)
    found = _READS_FLAG.match(code)
    if found is None:
        raise EngineFailure(f"calibration: {code.hex(' ')} does not test the flag expected")
    (offset,) = struct.unpack("<I", found[1])
    flag = engine_handle(uc) + offset
    # Behind it lies whether the engine is initialised, which it is by now.
    if _read_self(flag, 2) != b"\x00\x01":
        raise EngineFailure(f"calibration: no flag at {offset:#x} in the engine's handle")
    ctypes.memset(flag, 1, 1)


def engine_handle(uc: Uc) -> int:
    """The `uc_engine *` of an engine."""
    handle = ctypes.cast(uc._uch, ctypes.c_void_p).value  # noqa: SLF001 - no public way
    if handle is None:
        raise EngineFailure("Unicorn has no engine handle")
    return handle


def library() -> ctypes.CDLL:
    """Unicorn's shared library, apart from the argument types that its binding sets."""
    return ctypes.CDLL(uclib._name)  # noqa: SLF001 - no public way
