"""The part of the kernel's interface that the engine uses (linux/kvm.h, asm/kvm.h, x86).

Structures are declared once, as ctypes layouts. An ioctl's number has the size of its
structure in it, so each one is computed from the layout and compared with the number
in the kernel's header: a layout of the wrong size cannot be loaded.
"""

from ctypes import Structure, Union, c_uint8, c_uint16, c_uint32, c_uint64, sizeof
from enum import IntEnum, IntFlag

__all__ = [
    "API_VERSION",
    "GENERAL",
    "SEGMENTS",
    "SEGMENT_PARTS",
    "Capability",
    "CpuidEntry",
    "CpuidList",
    "DebugRegisters",
    "Dtable",
    "EnableCap",
    "Exit",
    "FailedEntry",
    "InternalError",
    "Interrupt",
    "IoExit",
    "Ioctl",
    "MemoryRegion",
    "MmioExit",
    "MpState",
    "MsrEntry",
    "MsrList",
    "OneReg",
    "Regs",
    "RunArea",
    "Segment",
    "SignalMask",
    "SlotFlag",
    "Sregs",
    "SyncRegs",
    "Translation",
]

API_VERSION = 12
"""Anything else is to be refused (Documentation/virt/kvm/api.rst, section 4.1)."""

GENERAL = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags",
)  # fmt: skip
"""In the order of struct kvm_regs."""

SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
"""In the order of struct kvm_sregs."""

SEGMENT_PARTS = (
    "base", "limit", "selector", "type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable",
)  # fmt: skip
"""In the order of struct kvm_segment."""


class Regs(Structure):
    """struct kvm_regs."""

    _fields_ = [(name, c_uint64) for name in GENERAL]


class Segment(Structure):
    """struct kvm_segment: a segment register with its hidden part."""

    _fields_ = [
        ("base", c_uint64),
        ("limit", c_uint32),
        ("selector", c_uint16),
        ("type", c_uint8),
        ("present", c_uint8),
        ("dpl", c_uint8),
        ("db", c_uint8),
        ("s", c_uint8),
        ("l", c_uint8),
        ("g", c_uint8),
        ("avl", c_uint8),
        ("unusable", c_uint8),
        ("padding", c_uint8),
    ]


class Dtable(Structure):
    """struct kvm_dtable: GDTR or IDTR."""

    _fields_ = [("base", c_uint64), ("limit", c_uint16), ("padding", c_uint16 * 3)]


class Sregs(Structure):
    """struct kvm_sregs."""

    _fields_ = [
        *((name, Segment) for name in SEGMENTS),
        ("gdt", Dtable),
        ("idt", Dtable),
        ("cr0", c_uint64),
        ("cr2", c_uint64),
        ("cr3", c_uint64),
        ("cr4", c_uint64),
        ("cr8", c_uint64),
        ("efer", c_uint64),
        ("apic_base", c_uint64),
        ("interrupt_bitmap", c_uint64 * 4),
    ]


class DebugRegisters(Structure):
    """struct kvm_debugregs."""

    _fields_ = [
        ("db", c_uint64 * 4),
        ("dr6", c_uint64),
        ("dr7", c_uint64),
        ("flags", c_uint64),
        ("reserved", c_uint64 * 9),
    ]


class MemoryRegion(Structure):
    """struct kvm_userspace_memory_region: one slot."""

    _fields_ = [
        ("slot", c_uint32),
        ("flags", c_uint32),
        ("guest_phys_addr", c_uint64),
        ("memory_size", c_uint64),
        ("userspace_addr", c_uint64),
    ]


class DirtyBitmap(Structure):
    """struct kvm_dirty_log: where the pages of one slot that were written are to be told."""

    _fields_ = [
        ("slot", c_uint32),
        ("padding1", c_uint32),
        ("dirty_bitmap", c_uint64),
    ]


class Interrupt(Structure):
    """struct kvm_interrupt: the vector of an external interrupt."""

    _fields_ = [("irq", c_uint32)]


class MpState(Structure):
    """struct kvm_mp_state."""

    _fields_ = [("mp_state", c_uint32)]


class EnableCap(Structure):
    """struct kvm_enable_cap."""

    _fields_ = [
        ("cap", c_uint32),
        ("flags", c_uint32),
        ("args", c_uint64 * 4),
        ("pad", c_uint8 * 64),
    ]


class Translation(Structure):
    """struct kvm_translation: a linear address and where the guest's tables lead it."""

    _fields_ = [
        ("linear_address", c_uint64),
        ("physical_address", c_uint64),
        ("valid", c_uint8),
        ("writeable", c_uint8),
        ("usermode", c_uint8),
        ("pad", c_uint8 * 5),
    ]


class OneReg(Structure):
    """struct kvm_one_reg: an id, and where its value lies in our memory."""

    _fields_ = [("id", c_uint64), ("addr", c_uint64)]


class MsrEntry(Structure):
    """struct kvm_msr_entry."""

    _fields_ = [("index", c_uint32), ("reserved", c_uint32), ("data", c_uint64)]


class MsrList(Structure):
    """The head of struct kvm_msrs; entries follow."""

    _fields_ = [("nmsrs", c_uint32), ("pad", c_uint32)]


class CpuidEntry(Structure):
    """struct kvm_cpuid_entry2."""

    _fields_ = [
        ("function", c_uint32),
        ("index", c_uint32),
        ("flags", c_uint32),
        ("eax", c_uint32),
        ("ebx", c_uint32),
        ("ecx", c_uint32),
        ("edx", c_uint32),
        ("padding", c_uint32 * 3),
    ]


class CpuidList(Structure):
    """The head of struct kvm_cpuid2; entries follow."""

    _fields_ = [("nent", c_uint32), ("padding", c_uint32)]


class SignalMask(Structure):
    """The head of struct kvm_signal_mask; the set follows."""

    _fields_ = [("len", c_uint32)]


class IoExit(Structure):
    """kvm_run.io: `count` accesses of `size` bytes each, their data at `data_offset`."""

    _fields_ = [
        ("direction", c_uint8),
        ("size", c_uint8),
        ("port", c_uint16),
        ("count", c_uint32),
        ("data_offset", c_uint64),
    ]


class MmioExit(Structure):
    """kvm_run.mmio: an access to guest-physical memory that no slot holds, or a store to a ROM."""

    _fields_ = [
        ("phys_addr", c_uint64),
        ("data", c_uint8 * 8),
        ("len", c_uint32),
        ("is_write", c_uint8),
    ]


class FailedEntry(Structure):
    """kvm_run.fail_entry."""

    _fields_ = [("hardware_entry_failure_reason", c_uint64), ("cpu", c_uint32)]


class InternalError(Structure):
    """kvm_run.internal."""

    _fields_ = [("suberror", c_uint32), ("ndata", c_uint32), ("data", c_uint64 * 16)]


class _ExitDetail(Union):
    _fields_ = [
        ("io", IoExit),
        ("mmio", MmioExit),
        ("fail_entry", FailedEntry),
        ("internal", InternalError),
        ("padding", c_uint8 * 256),
    ]


class _RegsAndSregs(Structure):
    _fields_ = [("regs", Regs), ("sregs", Sregs)]


class _SyncedState(Union):
    _fields_ = [("regs", _RegsAndSregs), ("padding", c_uint8 * 2048)]


class RunArea(Structure):
    """struct kvm_run: what the kernel and we tell each other around KVM_RUN."""

    _anonymous_ = ("exit",)
    _fields_ = [
        ("request_interrupt_window", c_uint8),
        ("immediate_exit", c_uint8),
        ("padding1", c_uint8 * 6),
        ("exit_reason", c_uint32),
        ("ready_for_interrupt_injection", c_uint8),
        ("if_flag", c_uint8),
        ("flags", c_uint16),
        ("cr8", c_uint64),
        ("apic_base", c_uint64),
        ("exit", _ExitDetail),
        ("kvm_valid_regs", c_uint64),
        ("kvm_dirty_regs", c_uint64),
        ("s", _SyncedState),
    ]


class SyncRegs(IntFlag):
    """What KVM_RUN copies into and out of `RunArea.s`."""

    REGS = 1
    SREGS = 2


class SlotFlag(IntFlag):
    """Flags of a memory region."""

    LOG_DIRTY_PAGES = 1
    READONLY = 2


class Exit(IntEnum):
    """Why KVM_RUN returned."""

    UNKNOWN = 0
    IO = 2
    HLT = 5
    MMIO = 6
    IRQ_WINDOW_OPEN = 7
    SHUTDOWN = 8
    FAIL_ENTRY = 9
    INTR = 10
    INTERNAL_ERROR = 17
    SYSTEM_EVENT = 24


class Capability(IntEnum):
    """What KVM_CHECK_EXTENSION can be asked."""

    IRQCHIP = 0
    USER_MEMORY = 3
    SET_TSS_ADDR = 4
    EXT_CPUID = 7
    NR_VCPUS = 9
    NR_MEMSLOTS = 10
    MP_STATE = 14
    SET_IDENTITY_MAP_ADDR = 37
    DEBUGREGS = 50
    MAX_VCPUS = 66
    ONE_REG = 70
    SYNC_REGS = 74
    READONLY_MEM = 81
    ENABLE_CAP_VM = 98
    SPLIT_IRQCHIP = 121
    IMMEDIATE_EXIT = 136
    BINARY_STATS_FD = 203


_NONE, _WRITE, _READ = 0, 1, 2
_KVMIO = 0xAE


def _io(number: int) -> int:
    """_IO(KVMIO, number)."""
    return _KVMIO << 8 | number


def _sized(direction: int, number: int, layout: type[Structure], header: int) -> int:
    """_IOR, _IOW or _IOWR, which must give the number that the header's macro gives."""
    computed = direction << 30 | sizeof(layout) << 16 | _KVMIO << 8 | number
    if computed != header:
        raise TypeError(
            f"{layout.__name__} has {sizeof(layout)} bytes and gives ioctl {computed:#x}, "
            f"the kernel's header {header:#x}"
        )
    return computed


class _Address(Structure):
    _fields_ = [("address", c_uint64)]


class Ioctl(IntEnum):
    """Requests, by the kernel's names without KVM_."""

    GET_API_VERSION = _io(0x00)
    CREATE_VM = _io(0x01)
    CHECK_EXTENSION = _io(0x03)
    GET_VCPU_MMAP_SIZE = _io(0x04)
    CREATE_VCPU = _io(0x41)
    SET_TSS_ADDR = _io(0x47)
    RUN = _io(0x80)
    GET_SUPPORTED_CPUID = _sized(_READ | _WRITE, 0x05, CpuidList, 0xC008AE05)
    GET_DIRTY_LOG = _sized(_WRITE, 0x42, DirtyBitmap, 0x4010AE42)
    SET_USER_MEMORY_REGION = _sized(_WRITE, 0x46, MemoryRegion, 0x4020AE46)
    SET_IDENTITY_MAP_ADDR = _sized(_WRITE, 0x48, _Address, 0x4008AE48)
    GET_REGS = _sized(_READ, 0x81, Regs, 0x8090AE81)
    SET_REGS = _sized(_WRITE, 0x82, Regs, 0x4090AE82)
    GET_SREGS = _sized(_READ, 0x83, Sregs, 0x8138AE83)
    SET_SREGS = _sized(_WRITE, 0x84, Sregs, 0x4138AE84)
    TRANSLATE = _sized(_READ | _WRITE, 0x85, Translation, 0xC018AE85)
    INTERRUPT = _sized(_WRITE, 0x86, Interrupt, 0x4004AE86)
    GET_MSRS = _sized(_READ | _WRITE, 0x88, MsrList, 0xC008AE88)
    SET_MSRS = _sized(_WRITE, 0x89, MsrList, 0x4008AE89)
    SET_SIGNAL_MASK = _sized(_WRITE, 0x8B, SignalMask, 0x4004AE8B)
    SET_CPUID2 = _sized(_WRITE, 0x90, CpuidList, 0x4008AE90)
    GET_MP_STATE = _sized(_READ, 0x98, MpState, 0x8004AE98)
    SET_MP_STATE = _sized(_WRITE, 0x99, MpState, 0x4004AE99)
    GET_DEBUGREGS = _sized(_READ, 0xA1, DebugRegisters, 0x8080AEA1)
    SET_DEBUGREGS = _sized(_WRITE, 0xA2, DebugRegisters, 0x4080AEA2)
    ENABLE_CAP = _sized(_WRITE, 0xA3, EnableCap, 0x4068AEA3)
    GET_ONE_REG = _sized(_WRITE, 0xAB, OneReg, 0x4010AEAB)
    SET_ONE_REG = _sized(_WRITE, 0xAC, OneReg, 0x4010AEAC)
