"""The file descriptors of /dev/kvm: the system's, a virtual machine's, a vCPU's."""

import errno
import fcntl
import mmap
import os
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from vmm.core.errors import BadDescription, EngineFailure
from vmm.engine.kvm.uapi import API_VERSION, Capability, EnableCap, Ioctl, RunArea

__all__ = [
    "DEVICE",
    "IOAPIC_PINS",
    "Kvm",
    "KvmRefused",
    "KvmUnavailable",
    "KvmVm",
    "VcpuDescriptor",
]

DEVICE = Path("/dev/kvm")

IOAPIC_PINS = 24
"""Of the IOAPIC that userspace has beside local APICs in the kernel."""

_TSS_ADDRESS = 0x7FFBD000
"""Three pages that Intel processors without unrestricted guest mode need for real mode, between
the most RAM that a machine has and the addresses of PCI devices."""


class KvmUnavailable(BadDescription):
    """There is no /dev/kvm here, or not for us, or not the one we know."""


class KvmRefused(EngineFailure):
    """The kernel refused a request. `number` is its errno."""

    def __init__(self, request: Ioctl, number: int) -> None:
        super().__init__(f"KVM_{request.name}: {os.strerror(number)}")
        self.request = request
        self.number = number


class _Descriptor:
    """A file descriptor that closes once, at the latest with its owner."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._finalizer = weakref.finalize(self, os.close, fd)

    def ioctl(self, request: Ioctl, argument: int = 0) -> int:
        """A request with a number, or none; raises `KvmRefused`."""
        try:
            return fcntl.ioctl(self.fd, request.value, argument)
        except OSError as error:
            raise KvmRefused(request, error.errno or 0) from None

    def ioctl_buffer(self, request: Ioctl, buffer: bytearray | memoryview) -> int:
        """A request with a structure, which the kernel may change; raises `KvmRefused`."""
        try:
            answer: int = fcntl.ioctl(self.fd, request.value, buffer)
        except OSError as error:
            raise KvmRefused(request, error.errno or 0) from None
        return answer

    def capability(self, which: Capability) -> int:
        """What the kernel says to KVM_CHECK_EXTENSION: 0 for no, 1 or a number for yes."""
        return self.ioctl(Ioctl.CHECK_EXTENSION, which)

    def close(self) -> None:
        """Give the descriptor back."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Kvm(_Descriptor):
    """/dev/kvm itself. Raises `KvmUnavailable` and says what is missing."""

    def __init__(self, path: Path = DEVICE) -> None:
        try:
            super().__init__(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except FileNotFoundError:
            raise KvmUnavailable(
                f"{path} does not exist: no KVM in this kernel, its module is not loaded, or this "
                "is a virtual machine or container without it"
            ) from None
        except PermissionError:
            raise KvmUnavailable(
                f"{path}: permission denied; its group, usually kvm, may open it"
            ) from None
        except OSError as error:
            raise KvmUnavailable(f"{path}: {error.strerror or error}") from None
        try:
            version = self.ioctl(Ioctl.GET_API_VERSION)
        except KvmRefused as refusal:
            self.close()
            if refusal.number == errno.ENOTTY:
                raise KvmUnavailable(
                    f"{path} is not KVM: it knows no KVM_GET_API_VERSION"
                ) from None
            raise
        if version != API_VERSION:
            self.close()
            raise KvmUnavailable(f"{path} has API version {version}, expected {API_VERSION}")

    def create_vm(self) -> "KvmVm":
        """A virtual machine without memory and vCPUs."""
        return KvmVm(self)


class KvmVm(_Descriptor):
    """One virtual machine; with `local_apic` the kernel has a local APIC for each vCPU."""

    def __init__(self, kvm: Kvm, *, local_apic: bool = False) -> None:
        super().__init__(kvm.ioctl(Ioctl.CREATE_VM))
        self._run_size = kvm.ioctl(Ioctl.GET_VCPU_MMAP_SIZE)
        if self.capability(Capability.SET_TSS_ADDR):
            self.ioctl(Ioctl.SET_TSS_ADDR, _TSS_ADDRESS)
        if local_apic:
            # Before the first vCPU is made, or not at all.
            self.enable(Capability.SPLIT_IRQCHIP, IOAPIC_PINS)

    def enable(self, capability: Capability, argument: int = 0) -> None:
        """KVM_ENABLE_CAP with one argument."""
        request = EnableCap(cap=capability)
        request.args[0] = argument
        self.ioctl_buffer(Ioctl.ENABLE_CAP, bytearray(request))

    def create_vcpu(self, number: int) -> "VcpuDescriptor":
        """A vCPU; the thread that runs it should be the one that creates it."""
        return VcpuDescriptor(self.ioctl(Ioctl.CREATE_VCPU, number), self._run_size)


class VcpuDescriptor(_Descriptor):
    """One vCPU and the area that it shares with the kernel."""

    def __init__(self, fd: int, run_size: int) -> None:
        super().__init__(fd)
        if run_size < RunArea.s.offset:
            self.close()
            raise EngineFailure(f"the kernel's run area has {run_size} bytes only")
        self.area = mmap.mmap(fd, run_size)

    def close(self) -> None:
        """Unmap the area and give the descriptor back."""
        if not self.area.closed:
            self.area.close()
        super().close()
