"""Opening /dev/kvm, and being refused."""

from __future__ import annotations

import gc
import mmap
from collections.abc import Callable
from pathlib import Path

import pytest

from vmm.engine.kvm import device
from vmm.engine.kvm.device import Kvm, KvmRefused, KvmUnavailable
from vmm.engine.kvm.slots import Slot, SlotTable
from vmm.engine.kvm.uapi import Capability, Ioctl
from vmm.engine.kvm.vcpu import KvmVcpu


@pytest.mark.no_kvm
def test_no_device(tmp_path: Path) -> None:
    with pytest.raises(KvmUnavailable, match="nowhere does not exist: no KVM in this kernel"):
        Kvm(tmp_path / "nowhere")


@pytest.mark.no_kvm
def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(device.os, "open", refuse)
    with pytest.raises(KvmUnavailable, match="permission denied; its group, usually kvm, may"):
        Kvm(tmp_path)


@pytest.mark.no_kvm
def test_something_else_by_that_name(descriptors: Callable[[], int]) -> None:
    before = descriptors()
    with pytest.raises(KvmUnavailable, match="/dev/null is not KVM"):
        Kvm(Path("/dev/null"))
    assert descriptors() == before


def test_another_version_is_refused(
    monkeypatch: pytest.MonkeyPatch, descriptors: Callable[[], int]
) -> None:
    before = descriptors()
    monkeypatch.setattr(device, "API_VERSION", 13)
    with pytest.raises(KvmUnavailable, match="API version 12, expected 13"):
        Kvm()
    assert descriptors() == before


def test_a_refused_request_says_which() -> None:
    with Kvm() as kvm, kvm.create_vm() as vm:
        vm.create_vcpu(0)
        with pytest.raises(KvmRefused, match=r"KVM_CREATE_VCPU: .*exist") as refusal:
            vm.create_vcpu(0)
        assert refusal.value.request is Ioctl.CREATE_VCPU
        assert vm.capability(Capability.USER_MEMORY) == 1


def memory_in_use() -> int:
    """Bytes of this process that are in memory."""
    with Path("/proc/self/statm").open(encoding="ascii") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE


def make_and_drop(*, close: bool) -> None:
    """A machine with memory and a vCPU, closed or just forgotten."""
    kvm = Kvm()
    vm = kvm.create_vm()
    SlotTable(vm).replace([Slot(0, 1 << 16, mmap.mmap(-1, 1 << 16))])
    vcpu = KvmVcpu(vm)
    if close:
        vcpu.close()
        vm.close()
        kvm.close()


@pytest.mark.parametrize("close", [True, False])
def test_nothing_leaks(descriptors: Callable[[], int], *, close: bool) -> None:
    for _ in range(20):
        make_and_drop(close=close)
    gc.collect()
    before, memory = descriptors(), memory_in_use()
    for _ in range(200):
        make_and_drop(close=close)
    gc.collect()
    assert descriptors() == before
    assert memory_in_use() < memory + (4 << 20)
