"""One vCPU: its state by register id, and KVM_RUN."""

import errno
import fcntl
import struct
import threading
from collections.abc import Callable, Iterable

from vmm.core.errors import EngineFailure
from vmm.engine.kvm.device import Kvm, KvmRefused, KvmVm
from vmm.engine.kvm.kick import Kicker
from vmm.engine.kvm.registers import RegisterFile
from vmm.engine.kvm.uapi import (
    Capability,
    CpuidEntry,
    CpuidList,
    Exit,
    FailedEntry,
    InternalError,
    Ioctl,
    RunArea,
    SyncRegs,
)

__all__ = ["CpuidRow", "KvmVcpu", "supported_cpuid"]

CpuidRow = tuple[int, int, int, int, int, int, int]
"""Leaf, subleaf, flags, EAX, EBX, ECX, EDX."""

_MOST_CPUID = 256
_ROW = struct.Struct(f"<7I{CpuidEntry.padding.size}x")
_HEAD = struct.Struct(f"<I{CpuidList.padding.size}x")
_RUN = Ioctl.RUN.value
_EXIT_REASON = RunArea.exit_reason.offset
_UNION = RunArea.exit.offset


class KvmVcpu:
    """A vCPU of one machine, numbered from 0. It belongs to the thread that creates it.

    `sync` has KVM_RUN copy the registers into the shared area, where the host can do that.
    """

    def __init__(self, vm: KvmVm, number: int = 0, *, sync: bool = True) -> None:
        self.descriptor = vm.create_vcpu(number)
        self.area = self.descriptor.area
        wanted = SyncRegs.REGS | SyncRegs.SREGS if sync else SyncRegs(0)
        self.synced = SyncRegs(vm.capability(Capability.SYNC_REGS)) & wanted
        self.registers = RegisterFile(self.descriptor, self.synced)
        self.kicker = Kicker(self.descriptor)
        self._owner = threading.get_ident()

    def check_thread(self) -> None:
        """Raise `EngineFailure` in any thread but the vCPU's own."""
        if threading.get_ident() != self._owner:
            raise EngineFailure(
                "a vCPU belongs to the thread that created it; run the machine in that thread"
            )

    def set_cpuid(self, rows: Iterable[CpuidRow]) -> None:
        """What CPUID answers from now on; the guest must not have run yet."""
        packed = [_ROW.pack(*row) for row in rows]
        self.descriptor.ioctl_buffer(
            Ioctl.SET_CPUID2, bytearray(_HEAD.pack(len(packed)) + b"".join(packed))
        )

    def runner(self) -> Callable[[], int]:
        """A function that enters the guest once and answers the exit's number.

        A kick is `Exit.INTR`. Everything it needs is bound once: this is the hot path.
        """
        fd, area, ioctl = self.descriptor.fd, self.area, fcntl.ioctl
        reason = struct.Struct("<I").unpack_from

        def enter() -> int:
            try:
                ioctl(fd, _RUN, 0)
            except OSError as error:
                if error.errno in {errno.EINTR, errno.EAGAIN}:
                    return int(Exit.INTR)
                raise KvmRefused(Ioctl.RUN, error.errno or 0) from None
            number: int = reason(area, _EXIT_REASON)[0]
            return number

        return enter

    def explain(self, reason: int) -> str:
        """What the kernel says of an exit that ends the run."""
        area = self.area
        if reason == Exit.FAIL_ENTRY:
            code = struct.unpack_from(
                "<Q", area, _UNION + FailedEntry.hardware_entry_failure_reason.offset
            )[0]
            return f"KVM_EXIT_FAIL_ENTRY: the processor refused the guest's state, reason {code:#x}"
        if reason == Exit.INTERNAL_ERROR:
            code = struct.unpack_from("<I", area, _UNION + InternalError.suberror.offset)[0]
            return (
                f"KVM_EXIT_INTERNAL_ERROR: suberror {code} (1 is an instruction it cannot emulate)"
            )
        if reason == Exit.SHUTDOWN:
            return "KVM_EXIT_SHUTDOWN (a triple fault)"
        names = {int(known): known.name for known in Exit}
        return f"KVM_EXIT_{names.get(reason, reason)}"

    def close(self) -> None:
        """Give everything back to the kernel."""
        self.descriptor.close()


def supported_cpuid(kvm: Kvm) -> list[CpuidRow]:
    """What the host's processor and kernel can show a guest."""
    buffer = bytearray(_HEAD.pack(_MOST_CPUID) + bytes(_MOST_CPUID * _ROW.size))
    kvm.ioctl_buffer(Ioctl.GET_SUPPORTED_CPUID, buffer)
    count = _HEAD.unpack_from(buffer)[0]
    return [_ROW.unpack_from(buffer, _HEAD.size + i * _ROW.size) for i in range(count)]
