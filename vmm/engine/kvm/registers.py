"""Registers by 64-bit id, in any number at once, on the ioctls that know groups of them.

An id is built as the kernel builds those of ONE_REG (asm/kvm.h, KVM_X86_REG_ID): bits 56-63
the architecture, 52-55 the binary logarithm of the size in bytes, 32-39 the class, 0-31 the
index within it. Classes below 0x10 are the kernel's own; the others are ours and lead,
by a table, to a place in a structure that an ioctl gets and sets as a whole.
"""

import struct
from collections.abc import Iterable, Mapping
from ctypes import Structure, addressof, c_uint64, sizeof
from dataclasses import dataclass
from enum import Enum, IntEnum

from vmm.core.errors import BadDescription
from vmm.engine.kvm.device import KvmRefused, VcpuDescriptor
from vmm.engine.kvm.uapi import (
    GENERAL,
    SEGMENT_PARTS,
    SEGMENTS,
    DebugRegisters,
    Dtable,
    Ioctl,
    MsrEntry,
    MsrList,
    OneReg,
    Regs,
    RunArea,
    Segment,
    Sregs,
    SyncRegs,
)

__all__ = ["REGISTER_IDS", "RegisterClass", "RegisterFile", "UnknownRegister", "msr", "register_id"]

_X86 = 0x20 << 56
_SIZE_SHIFT = 52
_CLASS_SHIFT = 32
_FORMATS = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}


class UnknownRegister(BadDescription):
    """There is no register with this id, here or in the host."""


class RegisterClass(IntEnum):
    """Bits 32-39 of an id."""

    MSR = 2
    """The kernel's: the index is the MSR's."""
    KERNEL = 3
    """The kernel's: its own synthetic registers, by ONE_REG alone."""
    GENERAL = 0x10
    """By struct kvm_regs."""
    SPECIAL = 0x11
    """Segments (16 a register), descriptor tables and control registers."""
    DEBUG = 0x12


def register_id(kind: int, index: int, size: int = 8) -> int:
    """The id of a register of `size` bytes, which is 1, 2, 4 or 8."""
    return _X86 | (size.bit_length() - 1) << _SIZE_SHIFT | kind << _CLASS_SHIFT | index


def msr(index: int) -> int:
    """The id of a model-specific register."""
    return register_id(RegisterClass.MSR, index)


class _Group(Enum):
    """Registers that one ioctl gets and another sets."""

    REGS = (Ioctl.GET_REGS, Ioctl.SET_REGS, Regs)
    SREGS = (Ioctl.GET_SREGS, Ioctl.SET_SREGS, Sregs)
    DEBUG = (Ioctl.GET_DEBUGREGS, Ioctl.SET_DEBUGREGS, DebugRegisters)

    @property
    def layout(self) -> type[Structure]:
        layout: type[Structure] = self.value[2]
        return layout


@dataclass(frozen=True, slots=True)
class _Location:
    group: _Group
    offset: int
    format: str


def _table() -> tuple[dict[str, int], dict[int, _Location]]:
    ids: dict[str, int] = {}
    locations: dict[int, _Location] = {}

    def add(
        name: str, kind: RegisterClass, index: int, group: _Group, offset: int, size: int
    ) -> None:
        ids[name] = register_id(kind, index, size)
        locations[ids[name]] = _Location(group, offset, _FORMATS[size])

    for index, name in enumerate(GENERAL):
        add(name, RegisterClass.GENERAL, index, _Group.REGS, getattr(Regs, name).offset, 8)
    for number, segment in enumerate(SEGMENTS):
        start = getattr(Sregs, segment).offset
        for index, part in enumerate(SEGMENT_PARTS):
            field = getattr(Segment, part)
            add(
                f"{segment}.{part}",
                RegisterClass.SPECIAL,
                number << 4 | index,
                _Group.SREGS,
                start + field.offset,
                field.size,
            )
    for number, table in enumerate(("gdt", "idt"), len(SEGMENTS)):
        start = getattr(Sregs, table).offset
        for index, part in enumerate(("base", "limit")):
            field = getattr(Dtable, part)
            add(
                f"{table}.{part}",
                RegisterClass.SPECIAL,
                number << 4 | index,
                _Group.SREGS,
                start + field.offset,
                field.size,
            )
    for index, name in enumerate(("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")):
        offset = getattr(Sregs, name).offset
        add(name, RegisterClass.SPECIAL, 0x100 + index, _Group.SREGS, offset, 8)
    for index in range(4):
        add(f"dr{index}", RegisterClass.DEBUG, index, _Group.DEBUG, 8 * index, 8)
    for index, name in ((6, "dr6"), (7, "dr7")):
        offset = getattr(DebugRegisters, name).offset
        add(name, RegisterClass.DEBUG, index, _Group.DEBUG, offset, 8)
    return ids, locations


REGISTER_IDS: Mapping[str, int]
"""Ids by name: rax, rip, cr0, efer, cs.base, gdt.limit, dr7, ..."""
REGISTER_IDS, _LOCATIONS = _table()

_SYNCED = {
    _Group.REGS: (SyncRegs.REGS, RunArea.s.offset),
    _Group.SREGS: (SyncRegs.SREGS, RunArea.s.offset + sizeof(Regs)),
}


_NOTHING = SyncRegs(0)


class RegisterFile:
    """The registers of one vCPU.

    With `synced`, what KVM_RUN copies into the shared area anyway is read there, and a
    change is left there for the next KVM_RUN to take: no further system call either way.
    """

    def __init__(self, vcpu: VcpuDescriptor, synced: SyncRegs = _NOTHING) -> None:
        self._vcpu = vcpu
        self._synced = synced
        struct.pack_into("<Q", vcpu.area, RunArea.kvm_valid_regs.offset, synced)
        for group, (flag, offset) in _SYNCED.items():
            if flag in synced:
                buffer = bytearray(sizeof(group.layout))
                vcpu.ioctl_buffer(group.value[0], buffer)
                vcpu.area[offset : offset + len(buffer)] = bytes(buffer)

    def read(self, ids: Iterable[int]) -> list[int]:
        """The values, in the order asked. Raises `UnknownRegister` for an id there is not."""
        wanted = list(ids)
        groups: dict[_Group, bytes | bytearray] = {}
        values = []
        others = self._read_msrs([i for i in wanted if _class_of(i) == RegisterClass.MSR])
        for register in wanted:
            location = _LOCATIONS.get(register)
            if location is not None:
                if location.group not in groups:
                    groups[location.group] = self._load(location.group)
                raw = groups[location.group]
                values.append(int(struct.unpack_from(location.format, raw, location.offset)[0]))
            elif register in others:
                values.append(others[register])
            else:
                values.append(self._one(Ioctl.GET_ONE_REG, register, 0))
        return values

    def write(self, values: Mapping[int, int]) -> None:
        """Set registers; those of one group change together.

        Raises `UnknownRegister` before anything has changed for an id that has no place
        in the table and no class of the kernel's.
        """
        groups: dict[_Group, bytearray] = {}
        model_specific: dict[int, int] = {}
        ones: dict[int, int] = {}
        for register, value in values.items():
            location = _LOCATIONS.get(register)
            if location is not None:
                if location.group not in groups:
                    groups[location.group] = bytearray(self._load(location.group))
                struct.pack_into(location.format, groups[location.group], location.offset, value)
            elif _class_of(register) == RegisterClass.MSR:
                model_specific[register] = value
            elif _class_of(register) == RegisterClass.KERNEL:
                ones[register] = value
            else:
                raise UnknownRegister(f"register id {register:#018x} is not known")
        for group, buffer in groups.items():
            self._store(group, buffer)
        if model_specific:
            self._write_msrs(model_specific)
        for register, value in ones.items():
            self._one(Ioctl.SET_ONE_REG, register, value)

    def named(self, *names: str) -> list[int]:
        """`read` by name."""
        return self.read(REGISTER_IDS[name] for name in names)

    def set_named(self, values: Mapping[str, int]) -> None:
        """`write` by name."""
        self.write({REGISTER_IDS[name]: value for name, value in values.items()})

    def _load(self, group: _Group) -> bytes | bytearray:
        size = sizeof(group.layout)
        if group in _SYNCED and _SYNCED[group][0] in self._synced:
            offset = _SYNCED[group][1]
            return self._vcpu.area[offset : offset + size]
        buffer = bytearray(size)
        self._vcpu.ioctl_buffer(group.value[0], buffer)
        return buffer

    def _store(self, group: _Group, buffer: bytearray) -> None:
        if group in _SYNCED and _SYNCED[group][0] in self._synced:
            flag, offset = _SYNCED[group]
            area, dirty = self._vcpu.area, RunArea.kvm_dirty_regs.offset
            area[offset : offset + len(buffer)] = bytes(buffer)
            old = struct.unpack_from("<Q", area, dirty)[0]
            struct.pack_into("<Q", area, dirty, old | flag)
            return
        self._vcpu.ioctl_buffer(group.value[1], buffer)

    def _read_msrs(self, registers: list[int]) -> dict[int, int]:
        if not registers:
            return {}
        buffer = _msr_buffer(dict.fromkeys(registers, 0))
        done = self._vcpu.ioctl_buffer(Ioctl.GET_MSRS, buffer)
        if done < len(registers):
            raise UnknownRegister(f"the host has no MSR {registers[done] & 0xFFFFFFFF:#x}")
        return {
            register: int(
                struct.unpack_from("<Q", buffer, _msr_offset(i) + MsrEntry.data.offset)[0]
            )
            for i, register in enumerate(registers)
        }

    def _write_msrs(self, values: dict[int, int]) -> None:
        done = self._vcpu.ioctl_buffer(Ioctl.SET_MSRS, _msr_buffer(values))
        if done < len(values):
            index, value = [*values.items()][done]
            raise UnknownRegister(
                f"the host does not take {value:#x} for MSR {index & 0xFFFFFFFF:#x}"
            )

    def _one(self, request: Ioctl, register: int, value: int) -> int:
        """KVM_GET_ONE_REG or KVM_SET_ONE_REG, for what only the kernel knows."""
        if _class_of(register) != RegisterClass.KERNEL:
            raise UnknownRegister(f"register id {register:#018x} is not known")
        cell = c_uint64(value)
        descriptor = OneReg(register, addressof(cell))
        try:
            self._vcpu.ioctl_buffer(request, bytearray(descriptor))
        except KvmRefused as refusal:
            raise UnknownRegister(f"register id {register:#018x}: {refusal}") from None
        return cell.value


def _class_of(register: int) -> int:
    return register >> _CLASS_SHIFT & 0xFF


def _msr_offset(index: int) -> int:
    return sizeof(MsrList) + index * sizeof(MsrEntry)


def _msr_buffer(values: Mapping[int, int]) -> bytearray:
    buffer = bytearray(_msr_offset(len(values)))
    struct.pack_into("<I", buffer, 0, len(values))
    for i, (register, value) in enumerate(values.items()):
        struct.pack_into("<IIQ", buffer, _msr_offset(i), register & 0xFFFFFFFF, 0, value)
    return buffer
