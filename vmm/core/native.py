"""Types of the engine's entry points, as the interpreted core calls them.

The compiled core takes the same names from native.pxd.
"""

import ctypes

__all__ = ["RegisterCall", "StopCall"]

StopCall = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t)
RegisterCall = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t, ctypes.c_int, ctypes.c_size_t)
