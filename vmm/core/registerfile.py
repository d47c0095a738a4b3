"""The registers of one virtual CPU: any list of them in one call, or none.

A call is checked whole before anything is written: an id that does not exist, a register
that is read-only or a value that cannot be, and nothing has changed.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from vmm.core.errors import BadDescription
from vmm.core.processor import Activity, Processor
from vmm.core.registerids import REGISTER_NAMES, REGISTERS, Register, RegisterClass
from vmm.core.vm import Vm

__all__ = ["FloatingPoint", "RegisterError", "RegisterFile", "load_registers", "save_registers"]

_FORMAT, _VERSION = "vmirom registers", 1
_GENERAL = {"rax": 0, "rcx": 1, "rdx": 2, "rbx": 3, "rsp": 4, "rbp": 5, "rsi": 6, "rdi": 7}
_SEGMENTS = {"es": 0, "cs": 1, "ss": 2, "ds": 3, "fs": 4, "gs": 5, "ldt": 6, "tr": 7}
_TABLES = {"gdt": 8, "idt": 9}
_SS = 2
# Where a part lies in the high dword of a descriptor: shift and mask.
_PARTS = {
    "type": (8, 15), "s": (12, 1), "dpl": (13, 3), "present": (15, 1),
    "avl": (20, 1), "l": (21, 1), "db": (22, 1), "g": (23, 1),
}  # fmt: skip
_PE, _PG = 1, 1 << 31
_CR4_KNOWN, _EFER_KNOWN, _VM86 = 0x7FF, 0x800, 0x20000
_CONTROLS = ("cr0", "cr3", "cr4", "efer")
_SYSENTER = {"sysenter_cs": 0x174, "sysenter_esp": 0x175, "sysenter_eip": 0x176}
_ACTIVITIES = (Activity.RUNNING, Activity.HALTED, Activity.WAITING)


class RegisterError(BadDescription):
    """An id that does not exist, a register that is read-only, or a value that cannot be."""


class FloatingPoint(Protocol):
    """What an engine knows of a CPU and the core does not: x87, SSE and SYSENTER's MSRs."""

    def read_register(self, name: str) -> int:
        """The value of a register of class FPU, or of SYSENTER's, by name."""
        ...

    def write_register(self, name: str, value: int) -> None:
        """Set it."""
        ...


class RegisterFile:
    """Registers by id (`vmm.core.registerids`) of a CPU that is not running."""

    def __init__(self, vm: Vm, processor: Processor, engine: FloatingPoint) -> None:
        self._vm = vm
        self._processor = processor
        self._vcpu = processor.vcpu
        self._engine = engine

    def ids(self) -> list[int]:
        """Every id that this CPU has; those of the local APIC only if it shows one."""
        return [
            register.id
            for register in REGISTERS.values()
            if register.kind is not RegisterClass.APIC or self._apic is not None
        ]

    def get(self, ids: Iterable[int]) -> dict[int, int]:
        """{id: value}, in the order asked. Raises `RegisterError` that names an unknown id."""
        self._vm.check_thread("get registers", self._vcpu)
        registers = [self._known(register) for register in ids]
        apic = {} if self._apic is None else _flat(self._apic.save())
        return {register.id: self._read(register, apic) for register in registers}

    def set(self, values: Mapping[int, int]) -> None:
        """Set registers, whatever their order.

        Raises `RegisterError`, with nothing changed, that names an id which is unknown or
        read-only, or whose value is out of range or contradicts another one.
        """
        self._vm.check_thread("set registers", self._vcpu)
        wanted: dict[str, int] = {}
        for register_id, value in values.items():
            register = self._known(register_id)
            if not register.writable:
                raise RegisterError(f"register {_called(register)} is read-only")
            if not 0 <= value < 1 << register.bits:
                raise RegisterError(
                    f"register {_called(register)} = {value:#x}: expected {register.bits} bits"
                )
            wanted[register.name] = value
        controls = self._checked(wanted)
        for name, value in wanted.items():
            self._write(REGISTERS[REGISTER_NAMES[name]], value)
        if any(name.partition(".")[0] in _SEGMENTS for name in wanted):
            shadowed = self._vcpu.cpu.in_interrupt_shadow()
            self._vcpu.cpu.enter_ring(self._vcpu.cpu.attributes(_SS) >> 13 & 3)
            self._vcpu.cpu.set_interrupt_shadow(shadowed)
        # In real mode the load of CR0 completes what loads of segments imply.
        if any(name in wanted for name in _CONTROLS) or not controls["cr0"] & _PE:
            self._load_controls(controls)
        apic = {name[5:]: value for name, value in wanted.items() if name.startswith("apic.")}
        if apic and self._apic is not None:
            self._apic.restore(_merged(self._apic.save(), apic))

    @property
    def _apic(self):  # type: ignore[no-untyped-def]
        return self._vcpu.privileged.apic

    def _known(self, register_id: int) -> Register:
        register = REGISTERS.get(register_id)
        if register is None:
            raise RegisterError(f"register id {register_id:#018x} is not known")
        if register.kind is RegisterClass.APIC and self._apic is None:
            raise RegisterError(f"register {_called(register)}: the guest sees no local APIC")
        return register

    def _checked(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """The control registers as they will be."""
        controls = {name: wanted.get(name, self._control(name)) for name in _CONTROLS}
        wrong = ""
        if controls["cr0"] & _PG and not controls["cr0"] & _PE:
            wrong = "cr0"
        elif controls["cr4"] & ~_CR4_KNOWN:
            wrong = "cr4"
        elif controls["efer"] & ~_EFER_KNOWN:
            wrong = "efer"
        elif wanted.get("rflags", 0) & _VM86:
            wrong = "rflags"
        elif wanted.get("activity", 0) >= len(_ACTIVITIES):
            wrong = "activity"
        if wrong:
            register = REGISTERS[REGISTER_NAMES[wrong]]
            value = wanted.get(wrong, controls.get(wrong, 0))
            raise RegisterError(f"register {_called(register)} cannot be {value:#x}")
        return controls

    def _control(self, name: str) -> int:
        value: int = (
            self._vcpu.privileged.msrs[0xC0000080]
            if name == "efer"
            else getattr(self._vcpu.paging, name)
        )
        return value

    def _load_controls(self, controls: Mapping[str, int]) -> None:
        """On shadow tables of its own; whoever ran last finds its own again."""
        current = self._vm.current
        self._vcpu.shadow.resume()
        self._vcpu.privileged.begin_with(
            controls["cr0"], controls["cr3"], controls["cr4"], controls["efer"]
        )
        self._vcpu.shadow.reset()
        current.shadow.resume()

    def _read(self, register: Register, apic: Mapping[str, int]) -> int:
        name, vcpu = register.name, self._vcpu
        match register.kind:
            case RegisterClass.GENERAL:
                special = {"rip": vcpu.cpu.eip, "rflags": vcpu.cpu.eflags}
                value = special[name]() if name in special else vcpu.cpu.reg(_GENERAL[name])
            case RegisterClass.SPECIAL:
                value = self._read_special(name)
            case RegisterClass.DEBUG:
                value = vcpu.privileged.debug(int(name[2:]))
            case RegisterClass.FPU:
                value = self._engine.read_register(name)
            case RegisterClass.MSR:
                value = self._read_msr(name, register.id & 0xFFFFFFFF)
            case RegisterClass.APIC:
                value = apic[name[5:]]
            case RegisterClass.EVENT:
                value = {
                    "interrupt_shadow": vcpu.cpu.in_interrupt_shadow(),
                    "activity": _ACTIVITIES.index(self._processor.activity),
                    "nmi_pending": self._processor.nmi,
                }[name]
        return int(value)

    def _read_special(self, name: str) -> int:
        cpu = self._vcpu.cpu
        register, _, part = name.partition(".")
        if not part:
            return int(cpu.cr2() if name == "cr2" else self._control(name))
        number = (_SEGMENTS | _TABLES)[register]
        reads: dict[str, Callable[[int], int]] = {
            "base": cpu.base, "limit": cpu.limit, "selector": cpu.selector,
        }  # fmt: skip
        if part in reads:
            return int(reads[part](number))
        shift, mask = _PARTS[part]
        return int(cpu.attributes(number)) >> shift & mask

    def _read_msr(self, name: str, number: int) -> int:
        if name == "tsc":
            return self._vm.now()
        if name in _SYSENTER:
            return self._engine.read_register(name)
        if name == "apic_base" and self._apic is not None:
            return int(self._apic.base_msr())
        return int(self._vcpu.privileged.msrs[number])

    def _write(self, register: Register, value: int) -> None:
        name, vcpu = register.name, self._vcpu
        if name in _CONTROLS:
            return
        match register.kind:
            case RegisterClass.GENERAL:
                if name == "rip":
                    vcpu.cpu.set_eip(value)
                elif name == "rflags":
                    vcpu.cpu.set_eflags(value | 2)
                else:
                    vcpu.cpu.set_reg(_GENERAL[name], value)
            case RegisterClass.SPECIAL:
                self._write_special(name, value)
            case RegisterClass.DEBUG:
                vcpu.privileged.set_debug(int(name[2:]), value)
            case RegisterClass.FPU:
                self._engine.write_register(name, value)
            case RegisterClass.MSR:
                if name in _SYSENTER:
                    self._engine.write_register(name, value)
                else:
                    vcpu.privileged.msrs[register.id & 0xFFFFFFFF] = value
            case RegisterClass.EVENT:
                if name == "interrupt_shadow":
                    vcpu.cpu.set_interrupt_shadow(bool(value))
                elif name == "activity":
                    self._processor.activity = _ACTIVITIES[value]
                else:
                    self._processor.nmi = bool(value)

    def _write_special(self, name: str, value: int) -> None:
        cpu = self._vcpu.cpu
        register, _, part = name.partition(".")
        if not part:
            cpu.set_cr2(value)
            return
        number = (_SEGMENTS | _TABLES)[register]
        fields = {
            "selector": cpu.selector(number),
            "base": cpu.base(number),
            "limit": cpu.limit(number),
            "attributes": cpu.attributes(number),
        }
        if part in fields:
            fields[part] = value
        else:
            shift, mask = _PARTS[part]
            fields["attributes"] = fields["attributes"] & ~(mask << shift) | value << shift
        cpu.set_segment(
            number, fields["selector"], fields["base"], fields["limit"], fields["attributes"]
        )


def _called(register: Register) -> str:
    return f"{register.name} ({register.id:#018x})"


def _flat(state: Mapping[str, int | list[int]]) -> dict[str, int]:
    """A local APIC's state with an entry for each element of a list."""
    flat: dict[str, int] = {}
    for name, value in state.items():
        if isinstance(value, list):
            flat.update({f"{name}{number}": item for number, item in enumerate(value)})
        else:
            flat[name] = value
    return flat


def _merged(
    state: Mapping[str, int | list[int]], changes: Mapping[str, int]
) -> dict[str, int | list[int]]:
    merged: dict[str, int | list[int]] = {}
    for name, value in state.items():
        if isinstance(value, list):
            merged[name] = [changes.get(f"{name}{i}", item) for i, item in enumerate(value)]
        else:
            merged[name] = changes.get(name, value)
    return merged


def save_registers(path: Path, values: Mapping[int, int]) -> None:
    """Write registers to a file, a line of JSON each; raises `OSError`."""
    rows = [
        {
            "id": f"{register:#018x}",
            "name": REGISTERS[register].name if register in REGISTERS else "",
            "value": f"{value:#x}",
        }
        for register, value in values.items()
    ]
    text = json.dumps({"format": _FORMAT, "version": _VERSION, "registers": rows}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def load_registers(path: Path) -> tuple[dict[int, int], list[int]]:
    """What a file holds: {id: value} of the registers known here, and the ids of others.

    Raises `RegisterError` for a file that is none, and `OSError`.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != _FORMAT:
            raise RegisterError(f"{str(path)!r} is of format {found['format']!r}, not {_FORMAT!r}")
        pairs = [(int(row["id"], 16), int(row["value"], 16)) for row in found["registers"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegisterError(f"{str(path)!r} holds no registers: {error!r}") from None
    known = {register: value for register, value in pairs if register in REGISTERS}
    return known, [register for register, _ in pairs if register not in REGISTERS]
