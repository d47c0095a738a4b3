"""Types of the engine's entry points, as the interpreted core calls them.

The compiled core takes the same names from native.pxd.
"""

import ctypes

__all__ = ["PageCall", "RegisterCall", "StopCall"]

StopCall = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t)
PageCall = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_uint64)
RegisterCall = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t, ctypes.c_int, ctypes.c_size_t)
