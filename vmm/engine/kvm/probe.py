"""What this host's KVM can do, found out by running a few instructions of each kind.

Some hosts page only in long mode, some have no real mode; none of it can be asked
for. So each ability is a virtual machine of its own that either stores a word and
halts, or does not. Nothing that such a machine does reaches this process: it has half a
megabyte, and a time limit.
"""

import struct
from dataclasses import dataclass
from functools import cache
from mmap import mmap

from vmm.core.errors import VmmError
from vmm.engine.ability import Ability
from vmm.engine.kvm.device import IOAPIC_PINS, Kvm, KvmRefused
from vmm.engine.kvm.modes import flat_protected, real_mode
from vmm.engine.kvm.registers import REGISTER_IDS
from vmm.engine.kvm.slots import Slot, SlotTable
from vmm.engine.kvm.uapi import Capability, Exit, MmioExit, RunArea
from vmm.engine.kvm.vcpu import KvmVcpu, supported_cpuid

__all__ = ["probe"]

_MEMORY = 0x80000
_CODE = 0x1000
_RESULT = 0x500
_ALIAS = 0x40000
"""Paging programs map this to physical 0, so that a store there proves a translation."""
_TABLES = 0x2000
_ROM = 0x100000
_MAGIC = 0x56494D56
_PATIENCE_NS = 2_000_000_000

_OPEN = 0x63
"""Present, writable, accessed, dirty."""
_LONG_DIRECTORIES, _PAE_DIRECTORIES, _PLAIN_DIRECTORIES = 3, 2, 1

_SET_CR3 = b"\xb8" + struct.pack("<I", _TABLES) + b"\x0f\x22\xd8"  # mov $tables, %eax; %eax, %cr3
_SET_PAE = b"\x0f\x20\xe0\x83\xc8\x20\x0f\x22\xe0"  # mov %cr4, %eax; or $0x20, %eax; to %cr4
_SET_LME = (
    b"\xb9\x80\x00\x00\xc0\x0f\x32"  # mov $EFER, %ecx; rdmsr
    b"\x0d\x00\x01\x00\x00\x0f\x30"  # or $0x100, %eax; wrmsr
)
_SET_PG = b"\x0f\x20\xc0\x0d\x00\x00\x00\x80\x0f\x22\xc0"  # mov %cr0, %eax; or $PG, %eax; to %cr0


def _store(address: int) -> bytes:
    """Store _MAGIC at an address and halt (mov $magic, %eax; mov %eax, address; hlt)."""
    return b"\xb8" + struct.pack("<I", _MAGIC) + b"\xa3" + struct.pack("<I", address) + b"\xf4"


_REAL = (
    b"\x66\xb8" + struct.pack("<I", _MAGIC)  # mov $magic, %eax
    + b"\x66\xa3" + struct.pack("<H", _RESULT)  # mov %eax, result
    + b"\xf4"  # hlt
)  # fmt: skip


_GDT, _IDT, _STACK = 0x7000, 0x7800, 0x9000
_VECTOR = 0x20
_HANDLER = 0x1800
_DESCRIPTORS = struct.pack("<3Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
_GATE = struct.pack("<HHHH", _HANDLER, 8, 0x8E00, 0)
_INTERRUPT = (
    b"\x0f\x01\x15" + struct.pack("<I", _GDT - 8)  # lgdt
    + b"\x0f\x01\x1d" + struct.pack("<I", _IDT - 8)  # lidt
    + b"\xbc" + struct.pack("<I", _STACK)  # mov $stack, %esp
    + b"\xcd" + bytes([_VECTOR])  # int: IRET comes back to the store
    + _store(_RESULT)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Program:
    """Code to run at `_CODE`, in real mode or flat, with `levels` of tables below the root."""

    name: str
    code: bytes
    real: bool = False
    levels: int = 0
    entry_size: int = 8


_PROGRAMS = (
    _Program("real_mode", _REAL, real=True),
    _Program("unpaged_32", _store(_RESULT)),
    _Program("unpaged_interrupts", _INTERRUPT),
    _Program(
        "paging_32",
        _SET_CR3 + _SET_PG + _store(_ALIAS + _RESULT),
        levels=_PLAIN_DIRECTORIES,
        entry_size=4,
    ),
    _Program(
        "paging_pae",
        _SET_CR3 + _SET_PAE + _SET_PG + _store(_ALIAS + _RESULT),
        levels=_PAE_DIRECTORIES,
    ),
    _Program(
        "long_mode",
        _SET_CR3 + _SET_PAE + _SET_LME + _SET_PG + _store(_ALIAS + _RESULT),
        levels=_LONG_DIRECTORIES,
    ),
)

_READ_ONLY_SLOTS, _SPLIT_IRQCHIP = "read_only_slots", "split_irqchip"


@cache
def probe() -> tuple[Ability, ...]:
    """Every ability of this host, found out once a process.

    Raises `KvmUnavailable` where there is no KVM to be asked.
    """
    with Kvm() as kvm:
        found = [_try(kvm, program) for program in _PROGRAMS]
        found.append(_read_only_slots(kvm))
        found.append(_split_irqchip(kvm))
    return tuple(found)


def _tables(program: _Program) -> bytes:
    """A chain of tables from `_TABLES` on; the last maps memory to itself, its middle to 0."""
    image = b""
    for level in range(program.levels):
        # The pointers of PAE's first level have no access bits (SDM vol. 3, table 4-8).
        bits = 1 if (program.levels, level) == (_PAE_DIRECTORIES, 0) else _OPEN
        entry = _TABLES + 0x1000 * (level + 1) | bits
        image += entry.to_bytes(program.entry_size, "little").ljust(0x1000, b"\0")
    entries = [page << 12 | _OPEN for page in range(_MEMORY >> 12)]
    entries[_ALIAS >> 12] = _OPEN
    return image + b"".join(entry.to_bytes(program.entry_size, "little") for entry in entries)


def _try(kvm: Kvm, program: _Program) -> Ability:
    """Run a program in a machine of its own."""
    memory = mmap(-1, _MEMORY)
    memory[_CODE : _CODE + len(program.code)] = program.code
    for at, data in (
        (_GDT - 8, struct.pack("<HI", len(_DESCRIPTORS) - 1, _GDT)),
        (_GDT, _DESCRIPTORS),
        (_IDT - 8, struct.pack("<HI", 0x7FF, _IDT)),
        (_IDT + 8 * _VECTOR, _GATE),
        (_HANDLER, b"\xcf"),
    ):
        memory[at : at + len(data)] = data
    if program.levels:
        tables = _tables(program)
        memory[_TABLES : _TABLES + len(tables)] = tables
    slots = [Slot(0, _MEMORY, memory)]
    try:
        reason, text = _run(kvm, slots, real=program.real)
    except VmmError as error:
        return Ability(program.name, available=False, detail=str(error))
    stored = struct.unpack_from("<I", memory, _RESULT)[0]
    if reason != Exit.HLT:
        return Ability(program.name, available=False, detail=text)
    if stored != _MAGIC:
        text = f"it halted, but stored {stored:#x} where {_MAGIC:#x} should be"
    return Ability(program.name, available=stored == _MAGIC, detail=text)


def _run(kvm: Kvm, slots: list[Slot], *, real: bool) -> tuple[int, str]:
    """Run what lies at `_CODE` until it exits; the exit's number, and it in words."""
    with kvm.create_vm() as vm:
        SlotTable(vm).replace(slots)
        vcpu = KvmVcpu(vm)
        try:
            vcpu.set_cpuid(supported_cpuid(kvm))
            state = real_mode(0) if real else flat_protected(8, 16, 0, 0)
            vcpu.registers.set_named({**state, "rip": _CODE})
            with vcpu.kicker as kicker:
                kicker.after(_PATIENCE_NS)
                reason = vcpu.runner()()
            if reason == Exit.INTR:
                return reason, f"no exit within {_PATIENCE_NS // 10**9} s"
            at = vcpu.registers.read([REGISTER_IDS["rip"]])[0]
            detail = f"{vcpu.explain(reason)} at {at:#x}"
            if reason == Exit.MMIO:
                offset = RunArea.exit.offset + MmioExit.phys_addr.offset
                detail += f", address {struct.unpack_from('<Q', vcpu.area, offset)[0]:#x}"
            return reason, detail
        finally:
            vcpu.close()


def _read_only_slots(kvm: Kvm) -> Ability:
    """A store to a read-only slot must exit, and change nothing."""
    code = _store(_ROM)
    memory, rom = mmap(-1, _MEMORY), mmap(-1, 0x1000)
    memory[_CODE : _CODE + len(code)] = code
    try:
        reason, detail = _run(
            kvm, [Slot(0, _MEMORY, memory), Slot(_ROM, 0x1000, rom, readonly=True)], real=False
        )
    except VmmError as error:
        return Ability(_READ_ONLY_SLOTS, available=False, detail=str(error))
    works = reason == Exit.MMIO and not any(rom[:4])
    return Ability(_READ_ONLY_SLOTS, available=works, detail=detail)


def _split_irqchip(kvm: Kvm) -> Ability:
    """Enable it on a machine that is thrown away."""
    try:
        with kvm.create_vm() as vm:
            if not vm.capability(Capability.SPLIT_IRQCHIP):
                text = "the kernel does not offer KVM_CAP_SPLIT_IRQCHIP"
                return Ability(_SPLIT_IRQCHIP, available=False, detail=text)
            vm.enable(Capability.SPLIT_IRQCHIP, IOAPIC_PINS)
    except KvmRefused as refusal:
        return Ability(_SPLIT_IRQCHIP, available=False, detail=str(refusal))
    return Ability(_SPLIT_IRQCHIP, available=True, detail=f"an IOAPIC of {IOAPIC_PINS} pins")
