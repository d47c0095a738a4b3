"""Registers by id: the ids, whole calls or nothing, files, and a CPU that goes on elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vmm.core.outcome import OutcomeKind
from vmm.core.registerfile import RegisterError, load_registers, save_registers
from vmm.core.registerids import (
    REGISTER_NAMES,
    REGISTERS,
    RegisterClass,
    class_of,
    register_id,
    size_of,
)
from vmm.engine.kvm.registers import REGISTER_IDS as KVM_IDS
from vmm.machine import Machine

if TYPE_CHECKING:
    from conftest import MakeGuest

COUNT = """
start:
	PAGING
	mov $0x11, %eax
	mov $0x5555, %esi
	fninit
	fld1
	fldpi
	xor %ecx, %ecx
1:	inc %ecx
	mov %ecx, FREE(,%ecx,4)
	cmp $1000, %ecx
	jne 1b
	fstpl FREE
	cmpl $0x400921fb, FREE + 4		# pi
	jne 2f
	cmp $0x5555, %esi
	jne 2f
	FINISH 0
2:	FINISH 1
"""


@pytest.fixture
def machine(tiny_guest: MakeGuest, make_machine: Any) -> Machine:
    made: Machine = make_machine(tiny_guest(COUNT), max_instructions=1500)
    return made


def test_ids_say_architecture_size_class_and_index() -> None:
    found = REGISTER_NAMES["cs.selector"]
    assert found == 0x20 << 56 | 1 << 52 | 0x11 << 32 | 2
    assert (size_of(found), class_of(found)) == (2, RegisterClass.SPECIAL)
    assert register_id(RegisterClass.MSR, 0xC0000080) == REGISTER_NAMES["efer"]
    assert len(REGISTERS) == len(REGISTER_NAMES)
    assert all(8 * register.size >= register.bits for register in REGISTERS.values())


def test_ids_are_those_of_the_kvm_engine() -> None:
    common = set(KVM_IDS) & set(REGISTER_NAMES) - {"efer", "apic_base", "gdt.limit", "idt.limit"}
    assert len(common) > 100
    assert {name: KVM_IDS[name] for name in common} == {n: REGISTER_NAMES[n] for n in common}


def test_every_register_can_be_read_and_written_back(machine: Machine) -> None:
    machine.run()
    registers = machine.registers[0]
    before = registers.get(registers.ids())
    assert list(before) == registers.ids()
    registers.set({i: value for i, value in before.items() if REGISTERS[i].writable})
    assert registers.get(registers.ids()) == before


def test_a_cpu_goes_on_in_another_machine(
    machine: Machine, tiny_guest: MakeGuest, make_machine: Any
) -> None:
    assert machine.run().outcome.kind is OutcomeKind.LIMIT
    first = machine.registers[0]
    values = {i: v for i, v in first.get(first.ids()).items() if REGISTERS[i].writable}
    other: Machine = make_machine(tiny_guest(COUNT))
    other.ram[:] = machine.ram[:]
    other.registers[0].set(values)
    run = other.run()
    assert run.outcome.kind is OutcomeKind.PASSED, run
    assert run.instructions < 4000


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({0x1234: 1}, "register id 0x0000000000001234 is not known"),
        ({REGISTER_NAMES["tsc"]: 1}, r"register tsc \(0x2030000200000010\) is read-only"),
        ({REGISTER_NAMES["rax"]: 1 << 32}, "register rax .* = 0x100000000: expected 32 bits"),
        ({REGISTER_NAMES["ss.dpl"]: 4}, "register ss.dpl .* = 0x4: expected 2 bits"),
        ({REGISTER_NAMES["rip"]: -1}, "register rip .* = -0x1: expected 32 bits"),
        ({REGISTER_NAMES["cr0"]: 0x80000000}, "register cr0 .* cannot be 0x80000000"),
        ({REGISTER_NAMES["cr4"]: 0x800}, "register cr4 .* cannot be 0x800"),
        ({REGISTER_NAMES["efer"]: 0x100}, "register efer .* cannot be 0x100"),
        ({REGISTER_NAMES["rflags"]: 0x20002}, "register rflags .* cannot be 0x20002"),
        ({REGISTER_NAMES["activity"]: 3}, "register activity .* cannot be 0x3"),
        ({REGISTER_NAMES["apic.tpr"]: 0}, "register apic.tpr .*: the guest sees no local APIC"),
    ],
)
def test_a_call_that_fails_has_changed_nothing(
    machine: Machine, values: dict[int, int], says: str
) -> None:
    registers = machine.registers[0]
    before = registers.get(registers.ids())
    with pytest.raises(RegisterError, match=says):
        registers.set({REGISTER_NAMES["rbx"]: 0x77, **values, REGISTER_NAMES["rcx"]: 0x78})
    assert registers.get(registers.ids()) == before


def test_an_unknown_id_cannot_be_read(machine: Machine) -> None:
    with pytest.raises(RegisterError, match="register id 0x0000000000000005 is not known"):
        machine.registers[0].get([REGISTER_NAMES["rax"], 5])


def test_a_local_apic_has_registers_where_it_is_shown(
    tiny_guest: MakeGuest, make_machine: Any
) -> None:
    machine = make_machine(tiny_guest(COUNT), apic=True)
    registers = machine.registers[0]
    tpr = REGISTER_NAMES["apic.tpr"]
    registers.set({tpr: 0x50, REGISTER_NAMES["apic.lvt3"]: 0x10000})
    assert registers.get([tpr, REGISTER_NAMES["apic.lvt3"]]) == {
        tpr: 0x50,
        REGISTER_NAMES["apic.lvt3"]: 0x10000,
    }
    assert machine.apics[0].read(0x80) == 0x50


def test_a_file_keeps_registers_and_reports_those_of_other_versions(
    machine: Machine, tmp_path: Path
) -> None:
    registers = machine.registers[0]
    values = registers.get(registers.ids())
    path = tmp_path / "registers"
    save_registers(path, values)
    assert load_registers(path) == (values, [])
    content = json.loads(path.read_text())
    newer = register_id(0x7F, 1)
    content["registers"].append({"id": f"{newer:#x}", "name": "new", "value": "0x1"})
    path.write_text(json.dumps(content))
    assert load_registers(path) == (values, [newer])


NO_ROWS = '{"format": "vmirom registers", "version": 1, "registers": [1]}'


@pytest.mark.parametrize("text", ["", "{}", "[]", "\x00", '{"format": "x"}', NO_ROWS])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "registers"
    path.write_text(text)
    with pytest.raises(RegisterError, match="registers"):
        load_registers(path)
