"""Registers by id: every place of the table, in any number, synced or by ioctl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vmm.engine.kvm.registers import (
    REGISTER_IDS,
    UnknownRegister,
    msr,
    register_id,
)
from vmm.engine.kvm.uapi import GENERAL, Exit

MakeSandbox = Callable[..., Any]

INC_HLT = b"\x40\xf4"  # inc %eax; hlt


@pytest.mark.no_kvm
def test_ids_are_built_as_the_kernel_builds_them() -> None:
    assert msr(0xC0000080) == 0x2030_0002_C000_0080
    assert REGISTER_IDS["rax"] == 0x2030_0010_0000_0000
    assert REGISTER_IDS["cs.selector"] >> 52 & 0xF == 1  # two bytes
    assert len(set(REGISTER_IDS.values())) == len(REGISTER_IDS)


@pytest.mark.parametrize("sync", [True, False])
def test_what_is_set_is_what_the_guest_has(sandbox: MakeSandbox, *, sync: bool) -> None:
    box = sandbox(INC_HLT, sync=sync)
    registers = box.vcpu.registers
    values = {name: 0x1000 + index for index, name in enumerate(GENERAL[:8])}
    registers.set_named({**values, "rip": 0x1000, "cr2": 0x1234})
    assert box.enter() == Exit.HLT
    after = dict(zip(GENERAL, registers.named(*GENERAL), strict=True))
    assert after["rax"] == values["rax"] + 1
    assert after["rip"] == 0x1002
    assert all(after[name] == values[name] for name in GENERAL[1:8])
    assert registers.named("cr2", "cs.selector", "cs.db") == [0x1234, 8, 1]


def test_groups_mix_and_keep_the_order(sandbox: MakeSandbox) -> None:
    registers = sandbox(b"").vcpu.registers
    ids = [REGISTER_IDS["dr3"], msr(0x174), REGISTER_IDS["rsi"], msr(0x175), REGISTER_IDS["cr4"]]
    registers.write(dict(zip(ids, (0x40, 0x10, 5, 0x8000, 0x10), strict=True)))
    box_ids = list(reversed(ids))
    assert sandbox(b"").vcpu.registers.read(ids) != [0x40, 0x10, 5, 0x8000, 0x10]
    fresh = registers.read([i for i in box_ids if i not in {REGISTER_IDS["rsi"], ids[-1]}])
    assert fresh == [0x8000, 0x10, 0x40]
    assert registers.named("rsi") == [5]


def test_unknown_ids_fail_and_change_nothing(sandbox: MakeSandbox) -> None:
    registers = sandbox(b"").vcpu.registers
    nobody = register_id(0x7F, 1)
    with pytest.raises(UnknownRegister, match="register id 0x2030007f00000001 is not known"):
        registers.read([REGISTER_IDS["rax"], nobody])
    before = registers.named("rax")
    with pytest.raises(UnknownRegister, match="0x2030007f00000001"):
        registers.write({REGISTER_IDS["rax"]: before[0] + 1, nobody: 0})
    assert registers.named("rax") == before
    with pytest.raises(UnknownRegister, match="no MSR 0x12345678"):
        registers.read([msr(0x12345678)])
    with pytest.raises(UnknownRegister, match="0x2030000300009999: KVM_GET_ONE_REG"):
        registers.read([register_id(3, 0x9999)])
