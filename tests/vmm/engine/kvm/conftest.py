"""KVM where there is one; everything here is skipped, with the reason, where there is not."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmm.engine.kvm.device import Kvm, KvmUnavailable, KvmVm
from vmm.engine.kvm.modes import flat_protected
from vmm.engine.kvm.slots import Slot, SlotTable
from vmm.engine.kvm.vcpu import KvmVcpu, supported_cpuid


@pytest.fixture(autouse=True)
def usable(request: pytest.FixtureRequest) -> None:
    """Skip without /dev/kvm, unless a test says that it needs none."""
    if request.node.get_closest_marker("no_kvm"):
        return
    try:
        Kvm().close()
    except KvmUnavailable as reason:
        pytest.skip(str(reason))


class Sandbox:
    """A machine of 64 KiB with one vCPU, unpaged, and code at 0x1000."""

    def __init__(self, kvm: Kvm, vm: KvmVm, code: bytes, *, sync: bool) -> None:
        self.vm = vm
        self.memory = mmap.mmap(-1, 1 << 16)
        self.memory[0x1000 : 0x1000 + len(code)] = code
        self.slots = SlotTable(vm)
        self.slots.replace([Slot(0, 1 << 16, self.memory)])
        self.vcpu = KvmVcpu(vm, sync=sync)
        self.vcpu.set_cpuid(supported_cpuid(kvm))
        self.vcpu.registers.set_named({**flat_protected(8, 16, 0, 0), "rip": 0x1000})
        self.enter = self.vcpu.runner()


@pytest.fixture
def sandbox() -> Iterator[Callable[..., Sandbox]]:
    """`sandbox(code, sync=True)`, any number of times."""
    made: list[Sandbox] = []
    kvm = Kvm()

    def make(code: bytes, *, sync: bool = True) -> Sandbox:
        made.append(Sandbox(kvm, kvm.create_vm(), code, sync=sync))
        return made[-1]

    yield make
    for each in made:
        each.vcpu.close()
        each.vm.close()
    kvm.close()


@pytest.fixture
def descriptors() -> Callable[[], int]:
    """How many file descriptors this process has open."""
    return lambda: len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts itself alike


@pytest.fixture
def header() -> Path:
    """The kernel's own header."""
    path = Path("/usr/include/linux/kvm.h")
    if not path.exists():
        pytest.skip(f"{path} is not installed (Debian: linux-libc-dev)")
    return path
