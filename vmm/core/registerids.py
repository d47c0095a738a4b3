"""Registers by 64-bit id, the same for every engine.

An id is built as the Linux kernel builds those of KVM_GET_ONE_REG (asm/kvm.h): bits 56-63
are the architecture (0x20, x86), 52-55 the binary logarithm of the size in bytes, 32-39 the
class, 0-31 the index within the class. Class `MSR` is the kernel's own, and its index the
MSR's number; the other classes are numbered from 0x10, which the kernel does not use.
Indexes follow struct kvm_regs, kvm_sregs and kvm_segment where those have the register.
"""

from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "REGISTERS",
    "REGISTER_NAMES",
    "Register",
    "RegisterClass",
    "class_of",
    "register_id",
    "size_of",
]

_X86 = 0x20 << 56
_SIZE_SHIFT, _CLASS_SHIFT = 52, 32
_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp")
_RIP, _RFLAGS = 16, 17
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
_TABLES = ("gdt", "idt")
_PARTS = (
    *(("base", 8, 32), ("limit", 4, 32), ("selector", 2, 16), ("type", 1, 4)),
    *(("present", 1, 1), ("dpl", 1, 2), ("db", 1, 1), ("s", 1, 1), ("l", 1, 1)),
    *(("g", 1, 1), ("avl", 1, 1)),
)
_CONTROL = 0x100
_CONTROLS = {"cr0": 0, "cr2": 1, "cr3": 2, "cr4": 3}
_MSRS = {
    "tsc": 0x10,
    "platform_id": 0x17,
    "apic_base": 0x1B,
    "microcode": 0x8B,
    "sysenter_cs": 0x174,
    "sysenter_esp": 0x175,
    "sysenter_eip": 0x176,
    "misc_enable": 0x1A0,
    "efer": 0xC0000080,
}
_APIC = (
    *(("base", 8), ("id", 4), ("tpr", 4), ("ldr", 4), ("dfr", 4), ("svr", 4), ("esr", 4)),
    *(("errors", 4), ("icr_low", 4), ("icr_high", 4), ("external_wanted", 1), ("divide", 4)),
    *(("initial", 4), ("left", 8), ("started", 8), ("fired", 8), ("deadline", 8)),
)
_APIC_LISTS = {"isr": (0x100, 8), "irr": (0x110, 8), "tmr": (0x120, 8), "lvt": (0x130, 6)}


class RegisterClass(IntEnum):
    """Bits 32-39 of an id."""

    MSR = 2
    GENERAL = 0x10
    SPECIAL = 0x11
    """Segments, 16 ids a register, descriptor tables, and control registers."""
    DEBUG = 0x12
    FPU = 0x13
    """x87 and SSE; `st0` to `st7` are the physical registers R0 to R7."""
    APIC = 0x14
    """The local APIC's state; there is one only on a machine that shows it."""
    EVENT = 0x15
    """What is under way between two instructions."""


@dataclass(frozen=True, slots=True)
class Register:
    """One register. Its value has `bits` bits, in a field of `size` bytes."""

    id: int
    name: str
    bits: int
    writable: bool = True

    @property
    def size(self) -> int:
        """Bytes, as the id says."""
        return size_of(self.id)

    @property
    def kind(self) -> RegisterClass:
        """The class, as the id says."""
        return RegisterClass(class_of(self.id))


def register_id(kind: int, index: int, size: int = 8) -> int:
    """The id of a register of `size` bytes: 1, 2, 4, 8 or 16."""
    return _X86 | (size.bit_length() - 1) << _SIZE_SHIFT | kind << _CLASS_SHIFT | index


def size_of(register: int) -> int:
    """Bytes, by the id."""
    size: int = 1 << (register >> _SIZE_SHIFT & 0xF)
    return size


def class_of(register: int) -> int:
    """Bits 32-39 of an id."""
    return register >> _CLASS_SHIFT & 0xFF


def _all() -> list[Register]:
    kinds = RegisterClass
    found: list[Register] = []

    def add(name: str, kind: int, index: int, size: int, bits: int = 0, **more: bool) -> None:
        found.append(Register(register_id(kind, index, size), name, bits or 8 * size, **more))

    for index, name in enumerate(_GENERAL):
        add(name, kinds.GENERAL, index, 8, 32)
    add("rip", kinds.GENERAL, _RIP, 8, 32)
    add("rflags", kinds.GENERAL, _RFLAGS, 8, 32)
    for number, segment in enumerate(_SEGMENTS):
        for index, (part, size, bits) in enumerate(_PARTS):
            add(f"{segment}.{part}", kinds.SPECIAL, number << 4 | index, size, bits)
    for number, name in enumerate(_TABLES, len(_SEGMENTS)):
        add(f"{name}.base", kinds.SPECIAL, number << 4, 8, 32)
        add(f"{name}.limit", kinds.SPECIAL, number << 4 | 1, 2)
    for name, index in _CONTROLS.items():
        add(name, kinds.SPECIAL, _CONTROL + index, 8, 32)
    for number in (0, 1, 2, 3, 6, 7):
        add(f"dr{number}", kinds.DEBUG, number, 8, 32)
    for name, number in _MSRS.items():
        add(name, kinds.MSR, number, 8, writable=name not in {"tsc", "apic_base"})
    for index, (name, size) in enumerate((("fcw", 2), ("fsw", 2), ("ftw", 2), ("mxcsr", 4))):
        add(name, kinds.FPU, index, size)
    # Of the last x87 instruction; the engine keeps no opcode of it.
    for index, (name, size) in enumerate((("fip", 8), ("fcs", 2), ("fdp", 8), ("fds", 2)), 4):
        add(name, kinds.FPU, index, size)
    for number in range(8):
        add(f"st{number}", kinds.FPU, 8 + number, 16, 80)
        add(f"xmm{number}", kinds.FPU, 16 + number, 16)
    for index, (name, size) in enumerate(_APIC):
        add(f"apic.{name}", kinds.APIC, index, size, 1 if size == 1 else 0)
    for name, (first, count) in _APIC_LISTS.items():
        for number in range(count):
            add(f"apic.{name}{number}", kinds.APIC, first + number, 4)
    add("interrupt_shadow", kinds.EVENT, 0, 1, 1)
    add("activity", kinds.EVENT, 1, 1, 2)
    add("nmi_pending", kinds.EVENT, 2, 1, 1)
    return found


REGISTERS: dict[int, Register] = {register.id: register for register in _all()}
"""Every register, by id."""
REGISTER_NAMES: dict[str, int] = {register.name: register.id for register in REGISTERS.values()}
"""Ids by name: rax, rip, cs.base, cr0, dr7, efer, mxcsr, apic.tpr, activity, ..."""
