"""Bring a vCPU out of the guest: after a time, or from another thread.

The kick is a real-time signal that its thread keeps blocked everywhere but inside
KVM_RUN (KVM_SET_SIGNAL_MASK). So it needs no handler, and one that arrives just before
KVM_RUN is not lost: it stays pending and KVM_RUN returns at once. The time is a POSIX
timer of the kernel's, sent to this one thread.
"""

import ctypes
import os
import signal
import struct
import threading
import time
from types import TracebackType
from typing import Self

from vmm.core.errors import EngineFailure
from vmm.engine.kvm.device import VcpuDescriptor
from vmm.engine.kvm.uapi import Ioctl

__all__ = ["Kicker"]

_SIGNAL = signal.SIGRTMAX - 1
_SIGEV_THREAD_ID = 4
_NS = 1_000_000_000


class _SignalEvent(ctypes.Structure):
    """struct sigevent with the member for SIGEV_THREAD_ID (signal.h); 64 bytes."""

    _fields_ = [
        ("value", ctypes.c_uint64),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("tid", ctypes.c_int),
        ("padding", ctypes.c_int * 11),
    ]


class _TimerSpec(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = [
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    ]


_libc = ctypes.CDLL(None, use_errno=True)


class Kicker:
    """The kicks of one vCPU, for the thread that enters this as a context."""

    def __init__(self, vcpu: VcpuDescriptor) -> None:
        self._vcpu = vcpu
        self._timer = ctypes.c_void_p()
        self._thread: int | None = None
        self._before: set[signal.Signals | int] = set()
        self._spec = _TimerSpec()

    def __enter__(self) -> Self:
        event = _SignalEvent(signo=_SIGNAL, notify=_SIGEV_THREAD_ID, tid=threading.get_native_id())
        if _libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)):
            raise EngineFailure(f"timer_create: {os.strerror(ctypes.get_errno())}")
        self._thread = threading.get_ident()
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, {_SIGNAL})
        mask = sum(1 << (number - 1) for number in self._before if number != _SIGNAL)
        self._vcpu.ioctl_buffer(Ioctl.SET_SIGNAL_MASK, bytearray(struct.pack("<IQ", 8, mask)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _libc.timer_delete(self._timer)
        self._thread = None
        self.settle()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def after(self, ns: int) -> None:
        """Kick once, `ns` nanoseconds from now; replaces an earlier request."""
        seconds, rest = divmod(max(ns, 1), _NS)
        self._spec.value_s, self._spec.value_ns = seconds, rest
        if _libc.timer_settime(self._timer, 0, ctypes.byref(self._spec), None):
            raise EngineFailure(f"timer_settime: {os.strerror(ctypes.get_errno())}")

    def now(self) -> None:
        """Kick from any thread; nothing happens while nobody runs the vCPU."""
        if self._thread is not None:
            signal.pthread_kill(self._thread, _SIGNAL)

    def settle(self) -> None:
        """Take a kick that has arrived, so that the next KVM_RUN does not return for it."""
        while signal.sigtimedwait({_SIGNAL}, 0) is not None:
            pass
