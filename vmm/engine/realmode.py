"""Run a far-called 16-bit routine, as firmware does with an option ROM's entry.

This is a little machine of its own: the guest's memory, no paging, no accounting
- POST precedes the guest - and bounds on instructions and software interrupts, which
go through the vector table at address 0.
"""

import ctypes
import mmap
import struct
from collections.abc import Callable, Mapping

from unicorn import Uc, UcError
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

from vmi.address import PAGE_SHIFT
from vmm.core.bus import PortBus
from vmm.core.errors import BadDescription
from vmm.core.memory import GuestMemory

__all__ = ["FarCall", "call_far"]

FarCall = Callable[[mmap.mmap, GuestMemory, PortBus, int, int, Mapping[str, int]], int]
"""What `call_far` is; an engine that has real mode brings its own."""

_END = 1 << 20
_LIMIT = 1_000_000
_INTERRUPT_LIMIT = 10_000
_STACK_SEGMENT = 0x7000
_STACK_POINTER = 0xFFF0
_RETURN_SEGMENT = 0xF000
_RETURN_OFFSET = 0xFFF0

_RETURN = (_RETURN_SEGMENT << 4) + _RETURN_OFFSET
_IF_AND_TF = 0x300

_REGISTERS = {
    "ax": x86.UC_X86_REG_AX,
    "bx": x86.UC_X86_REG_BX,
    "dx": x86.UC_X86_REG_DX,
    "di": x86.UC_X86_REG_DI,
    "es": x86.UC_X86_REG_ES,
}


def call_far(
    ram: mmap.mmap,
    memory: GuestMemory,
    ports: PortBus,
    segment: int,
    offset: int,
    registers: Mapping[str, int],
) -> int:
    """Far-call segment:offset with the given 16-bit registers; answers AX.

    The routine sees of `ram`, the buffer of all memory, what `memory` shows below 1 MiB.

    Raises `BadDescription` when the routine crashes, makes more than ten thousand
    software interrupts, or runs for more than a million instructions between two.
    """
    uc = Uc(const.UC_ARCH_X86, const.UC_MODE_16)
    _map(uc, ram, memory)
    stack = (_STACK_SEGMENT << 4) + _STACK_POINTER - 4
    uc.mem_write(
        stack, _RETURN_OFFSET.to_bytes(2, "little") + _RETURN_SEGMENT.to_bytes(2, "little")
    )
    uc.reg_write(x86.UC_X86_REG_SS, _STACK_SEGMENT)
    uc.reg_write(x86.UC_X86_REG_SP, _STACK_POINTER - 4)
    for name, value in registers.items():
        uc.reg_write(_REGISTERS[name], value)
    uc.reg_write(x86.UC_X86_REG_CS, segment)
    uc.hook_add(
        const.UC_HOOK_INSN,
        lambda _uc, port, width, _data: ports.read(port, width),
        None,
        1,
        0,
        x86.UC_X86_INS_IN,
    )
    uc.hook_add(
        const.UC_HOOK_INSN,
        lambda _uc, port, width, value, _data: ports.write(port, width, value),
        None,
        1,
        0,
        x86.UC_X86_INS_OUT,
    )
    numbers: list[int] = []

    def interrupt(_uc: Uc, number: int, _data: object) -> None:
        numbers.append(number)
        uc.emu_stop()

    uc.hook_add(const.UC_HOOK_INTR, interrupt)
    where = f"option ROM entry {segment:04x}:{offset:04x}"
    try:
        _run(uc, memory, numbers, (segment << 4) + offset, where)
    except UcError as error:
        raise BadDescription(f"{where} crashed: {error}") from None
    answer: int = uc.reg_read(x86.UC_X86_REG_AX)
    return answer


def _map(uc: Uc, ram: mmap.mmap, memory: GuestMemory) -> None:
    """The first megabyte: memory, and nothing where none is."""
    start = ctypes.addressof(ctypes.c_char.from_buffer(ram))
    end = 0
    for first, count, host, _ in memory.runs(_END >> PAGE_SHIFT):
        _map_nothing(uc, end, first << PAGE_SHIFT)
        uc.mem_map_ptr(
            first << PAGE_SHIFT,
            count << PAGE_SHIFT,
            const.UC_PROT_ALL,
            start + (host << PAGE_SHIFT),
        )
        end = (first + count) << PAGE_SHIFT
    _map_nothing(uc, end, _END)


def _map_nothing(uc: Uc, start: int, end: int) -> None:
    """A bus with nobody on it, from one address to another."""
    if start < end:
        uc.mmio_map(
            start,
            end - start,
            lambda _uc, _offset, width, _data: (1 << 8 * width) - 1,
            None,
            lambda _uc, _offset, _width, _value, _data: None,
            None,
        )


def _run(uc: Uc, memory: GuestMemory, numbers: list[int], start: int, where: str) -> None:
    """Run from an address until the routine returns; `numbers` gets what interrupts it."""
    at = start
    for _ in range(_INTERRUPT_LIMIT):
        uc.emu_start(at, _RETURN, count=_LIMIT)
        at = _here(uc)
        if not numbers:
            break
        _deliver(uc, memory, numbers.pop())
        at = _here(uc)
    else:
        raise BadDescription(f"{where} makes more than {_INTERRUPT_LIMIT} interrupts")
    if at != _RETURN:
        raise BadDescription(f"{where} did not return within {_LIMIT} instructions")


def _here(uc: Uc) -> int:
    here: int = (uc.reg_read(x86.UC_X86_REG_CS) << 4) + uc.reg_read(x86.UC_X86_REG_IP)
    return here


def _deliver(uc: Uc, memory: GuestMemory, number: int) -> None:
    """INT n in real mode (SDM vol. 3, 20.1.4): flags, CS and IP on the stack, then the vector."""
    flags = uc.reg_read(x86.UC_X86_REG_EFLAGS)
    sp = (uc.reg_read(x86.UC_X86_REG_SP) - 6) & 0xFFFF
    frame = (uc.reg_read(x86.UC_X86_REG_IP), uc.reg_read(x86.UC_X86_REG_CS), flags & 0xFFFF)
    uc.mem_write((uc.reg_read(x86.UC_X86_REG_SS) << 4) + sp, struct.pack("<3H", *frame))
    uc.reg_write(x86.UC_X86_REG_SP, sp)
    uc.reg_write(x86.UC_X86_REG_EFLAGS, flags & ~_IF_AND_TF)
    offset, segment = struct.unpack("<HH", memory.read(4 * number, 4))
    uc.reg_write(x86.UC_X86_REG_CS, segment)
    uc.reg_write(x86.UC_X86_REG_IP, offset)
