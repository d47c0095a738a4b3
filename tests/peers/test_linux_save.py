"""Linux, saved in the middle of its boot and resumed, ends its workload with equal counts.

VMI_KERNEL, VMI_INITRD and VMI_SMP_KERNEL are those of test_linux.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.inputs import load_rom
from vmm.core.policy import policy_named
from vmm.machine import Machine, MachineDescription

KERNEL, INITRD = os.environ.get("VMI_KERNEL", ""), os.environ.get("VMI_INITRD", "")
SMP_KERNEL = os.environ.get("VMI_SMP_KERNEL", "")

pytestmark = pytest.mark.skipif(
    not (KERNEL and INITRD),
    reason="VMI_KERNEL and VMI_INITRD are not set: they name a Linux kernel with CONFIG_VMI "
    "and its initial RAM disk",
)


def check(kernel: str, rom: str, policy: str, cpus: int, path: Path) -> None:
    about = MachineDescription(
        Path(kernel).read_bytes(),
        rom=load_rom(rom).image,
        command_line="console=ttyS0 panic=1",
        initrd=Path(INITRD).read_bytes(),
        policy=policy_named(policy),
        cpus=cpus,
    )
    whole = Machine(about).run()
    assert "WORKLOAD DONE" in whole.console
    for percent in (30, 80):
        machine = Machine(about)
        machine.proceed(instructions=whole.instructions * percent // 100)
        machine.save(path)
        machine.close()
        assert Machine.resume(path).run() == whole


@pytest.mark.parametrize("policy", ["svm-shadow", "svm-unsync", "vtx-shadow"])
@pytest.mark.parametrize("rom", ["none", "identity", "batching"])
def test_one_cpu(rom: str, policy: str, tmp_path: Path) -> None:
    check(KERNEL, rom, policy, 1, tmp_path / "saved")


@pytest.mark.skipif(not SMP_KERNEL, reason="VMI_SMP_KERNEL is not set")
@pytest.mark.parametrize("rom", ["none", "batching"])
@pytest.mark.parametrize("cpus", [2, 4])
def test_several_cpus(cpus: int, rom: str, tmp_path: Path) -> None:
    check(SMP_KERNEL, rom, "svm-shadow", cpus, tmp_path / "saved")
