"""Types of the engine's entry points, as the interpreted core calls them, and the host's clock.

The compiled core takes the same names from native.pxd.
"""

import ctypes
import os
from time import perf_counter_ns as host_ns

__all__ = [
    "FillCall",
    "LeaveCall",
    "PageCall",
    "RangeCall",
    "RegisterCall",
    "RestoreCall",
    "SetPageCall",
    "StopCall",
    "barrier",
    "fence",
    "host_ns",
    "relax",
    "return_address",
]

StopCall = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t)
PageCall = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_uint64)
RangeCall = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_uint64, ctypes.c_uint64)
SetPageCall = ctypes.CFUNCTYPE(
    None,
    *(ctypes.c_size_t, ctypes.c_uint64, ctypes.c_uint64),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_uint64),
)
FillCall = ctypes.CFUNCTYPE(
    ctypes.c_bool,
    *(ctypes.c_size_t, ctypes.c_uint64, ctypes.c_int, ctypes.c_int),
    *(ctypes.c_int, ctypes.c_bool, ctypes.c_size_t),
)
RestoreCall = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_bool)
LeaveCall = ctypes.CFUNCTYPE(None, ctypes.c_size_t)
RegisterCall = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t, ctypes.c_int, ctypes.c_size_t)


def return_address(_level: int) -> int:
    """Where translated code that has called goes on: nowhere, it never calls interpreted code."""
    return 0


def barrier() -> None:
    """Keep stores in order: interpreted, they are."""


def fence() -> None:
    """Order stores before later loads: the interpreter's lock has done it."""


def relax(_turn: int) -> None:
    """Let another thread go on, the interpreter's lock with it."""
    os.sched_yield()
