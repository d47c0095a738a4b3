"""A stock VMI Linux kernel with a local APIC and an I/O APIC, found by their MP tables.

As test_linux.py; the kernel needs CONFIG_X86_LOCAL_APIC and CONFIG_X86_IO_APIC, with or
without CONFIG_SMP.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest

from bench.inputs import load_rom
from vmm.core.event import Reason
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription, Run

KERNEL, INITRD = os.environ.get("VMI_KERNEL", ""), os.environ.get("VMI_INITRD", "")

pytestmark = pytest.mark.skipif(
    not (KERNEL and INITRD),
    reason="VMI_KERNEL and VMI_INITRD are not set: they name a Linux kernel with CONFIG_VMI "
    "and its initial RAM disk",
)


@cache
def boot(rom: str, *, apic: bool = True) -> Run:
    return Machine(
        MachineDescription(
            Path(KERNEL).read_bytes(),
            rom=load_rom(rom).image,
            command_line="console=ttyS0 panic=1",
            initrd=Path(INITRD).read_bytes(),
            apic=apic,
        )
    ).run()


def needs_an_apic_kernel(run: Run) -> None:
    if "I/O APIC" not in run.console:
        pytest.skip(f"{KERNEL} has no support for I/O APICs")


def workload(run: Run) -> list[str]:
    return [line for line in run.console.split("\n") if re.match(r"t_\w+ [0-9a-f]{8}|WORK", line)]


@pytest.mark.parametrize("rom", ["none", "identity", "batching"])
def test_it_finds_them_and_reaches_the_end(rom: str) -> None:
    run = boot(rom)
    needs_an_apic_kernel(run)
    assert run.outcome.kind is OutcomeKind.REBOOT, (run.outcome, run.console[-2000:])
    assert "found SMP MP-table" in run.console
    assert "I/O APIC #8 Version 17 at 0xFEC00000" in run.console
    assert re.search(r"\.\.TIMER: vector=0x\w\w apic1=0 pin1=2 ", run.console)
    assert workload(run) == workload(boot("none", apic=False)) != []
    # Ends of interrupts and the timer's registers are served in the core; the batching ROM
    # leaves no access to the registers in memory.
    light = run.ledger.by_reason[Reason.MMIO].light
    assert light == 0 if rom == "batching" else light > 100


def test_two_boots_are_equal() -> None:
    needs_an_apic_kernel(boot("none"))
    assert boot.__wrapped__("none") == boot("none")
