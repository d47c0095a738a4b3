"""A stock VMI Linux kernel in our machine, without a ROM and with each of ours.

The kernel is not part of the project: VMI_KERNEL names a bzImage with CONFIG_VMI (2.6.21
to 2.6.36) and VMI_INITRD an initial RAM disk whose init prints WORKLOAD DONE and reboots.
VMI_SMP_KERNEL names one that was built for several processors.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest

from bench.inputs import load_rom
from rombuilder.rom import build_rom
from vmm.core.event import Reason
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import POLICIES, policy_named
from vmm.machine import Machine, MachineDescription, Run

KERNEL, INITRD = os.environ.get("VMI_KERNEL", ""), os.environ.get("VMI_INITRD", "")
SMP_KERNEL = os.environ.get("VMI_SMP_KERNEL", "")
END = "WORKLOAD DONE"
MMU = (
    Reason.PTE_WRITE,
    Reason.SHADOW_FILL,
    Reason.PAGE_FAULT,
    Reason.INVLPG,
    Reason.CR_READ,
    Reason.CR_WRITE,
    Reason.HYPERCALL,
)

pytestmark = pytest.mark.skipif(
    not (KERNEL and INITRD),
    reason="VMI_KERNEL and VMI_INITRD are not set: they name a Linux kernel with CONFIG_VMI "
    "and its initial RAM disk",
)


def boot(rom: str, policy: str = POLICIES[0].name, cpus: int = 1, *, threads: bool = False) -> Run:
    return boot_rom(load_rom(rom).image, policy, cpus, threads=threads)


def boot_rom(
    image: bytes | None, policy: str = POLICIES[0].name, cpus: int = 1, *, threads: bool = False
) -> Run:
    return Machine(
        MachineDescription(
            Path(KERNEL if cpus == 1 else SMP_KERNEL).read_bytes(),
            rom=image,
            command_line="console=ttyS0 panic=1",
            initrd=Path(INITRD).read_bytes(),
            marks=(END,),
            policy=policy_named(policy),
            cpus=cpus,
            threads=threads,
        )
    ).run()


first_boot = cache(boot)


def mmu_exits(run: Run) -> int:
    rows = run.ledger.by_reason
    return sum(rows[reason].count for reason in MMU if reason in rows)


def workload(run: Run) -> list[str]:
    """What the init printed: checksums and verdicts, without what depends on time."""
    lines = run.console.split("\n")
    done = [line for line in lines if re.match(r"t_\w+ [0-9a-f]{8}|failures|" + END, line)]
    assert done, run.console[-2000:]
    return done


@pytest.mark.parametrize("rom", ["none", "identity", "batching"])
def test_linux_reaches_the_end_of_its_workload(rom: str) -> None:
    run = first_boot(rom)
    assert run.outcome.kind is OutcomeKind.REBOOT, (run.outcome, run.console[-2000:])
    assert END in run.console
    assert not run.complaints
    assert [phase.mark for phase in run.phases] == [END, "the end"]
    assert sum(phase.ledger.total for phase in run.phases) == run.ledger.total
    found = f"VMI: Found vmirom {rom}, API version 3.0" in run.console
    assert found == (rom != "none")
    assert ("paravirtualized kernel on vmi" in run.console) == (rom != "none")


def test_the_workload_prints_the_same_with_every_rom() -> None:
    native = workload(first_boot("none"))
    assert workload(first_boot("identity")) == native
    assert workload(first_boot("batching")) == native


def test_batching_saves_what_it_is_for() -> None:
    native, batching = first_boot("none"), first_boot("batching")
    before = native.ledger.by_reason[Reason.PTE_WRITE].count
    assert batching.ledger.by_reason[Reason.PTE_WRITE].count <= before * 0.05
    assert mmu_exits(batching) <= mmu_exits(native) * 0.5


def test_identity_costs_hardly_any_instructions() -> None:
    assert first_boot("identity").instructions <= first_boot("none").instructions * 1.02


def test_alarms_take_the_place_of_the_interval_timer() -> None:
    """The kernel keeps time by the ROM, and calibrates nothing by polling the PIT."""
    timed, untimed = first_boot("batching"), boot_rom(build_rom(timer=False).data)
    assert "vmi: registering clock event vmi-timer" in timed.console
    assert "vmi: registering clock event" not in untimed.console
    assert workload(timed) == workload(untimed)
    saved = untimed.ledger.by_reason[Reason.IO].count - timed.ledger.by_reason[Reason.IO].count
    assert saved > 5000
    assert timed.ledger.total <= untimed.ledger.total - saved * 0.9


def test_batching_saves_against_the_stronger_baseline_too() -> None:
    traced, unsync = first_boot("none"), first_boot("none", "svm-unsync")
    assert mmu_exits(unsync) < mmu_exits(traced) * 0.75
    assert mmu_exits(first_boot("batching", "svm-unsync")) < mmu_exits(unsync)
    assert workload(unsync) == workload(traced)


@pytest.mark.parametrize("rom", ["none", "batching"])
def test_two_boots_are_equal(rom: str) -> None:
    assert boot(rom) == first_boot(rom)


smp_kernel = pytest.mark.skipif(
    not SMP_KERNEL,
    reason="VMI_SMP_KERNEL is not set: it names a Linux kernel with CONFIG_VMI and CONFIG_SMP",
)


@smp_kernel
@pytest.mark.parametrize("rom", ["none", "identity", "batching"])
@pytest.mark.parametrize("cpus", [2, 4])
def test_linux_on_several_cpus_reaches_the_end_of_its_workload(rom: str, cpus: int) -> None:
    run = first_boot(rom, cpus=cpus)
    assert run.outcome.kind is OutcomeKind.REBOOT, (run.outcome, run.console[-2000:])
    assert f"Brought up {cpus} CPUs" in run.console
    assert not run.complaints
    assert workload(run) == workload(first_boot("none", cpus=2))
    assert all(share.ledger.by_reason[Reason.PAGE_FAULT].count for share in run.vcpus)


@smp_kernel
@pytest.mark.parametrize("rom", ["none", "batching"])
def test_two_boots_on_several_cpus_are_equal(rom: str) -> None:
    assert boot(rom, cpus=2) == first_boot(rom, cpus=2)


@smp_kernel
@pytest.mark.parametrize("rom", ["none", "identity", "batching"])
@pytest.mark.parametrize("cpus", [2, 4])
def test_linux_reaches_the_end_on_cpus_that_run_in_parallel(rom: str, cpus: int) -> None:
    run = boot(rom, cpus=cpus, threads=True)
    assert run.outcome.kind is OutcomeKind.REBOOT, (run.outcome, run.console[-2000:])
    assert f"Brought up {cpus} CPUs" in run.console
    assert not run.complaints
    assert workload(run) == workload(first_boot("none", cpus=2))
