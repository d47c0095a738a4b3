"""Physical addresses where no RAM is, each page behind a window of the engine.

The engine answers for a small range of its own physical space. A guest-physical
page without RAM is mapped there, a page at a time, so that an access comes back as
window number and offset.
"""

from array import array

import cython

from vmm.core.errors import EngineFailure
from vmm.core.saved import ARRAY, U32, BadState, Fields

WINDOWS = cython.declare(cython.uint, 256)


@cython.final
@cython.cclass
class Windows:
    """Windows from the engine-physical `address` on, given out in order."""

    SAVED = Fields(
        {ARRAY: "frame_of", U32: "used"},
        wiring="address",
    )

    def __init__(self, address):
        self.address = address
        self.frame_of = array("I", bytes(4 * WINDOWS))
        self.used = 0

    def _check_saved(self):
        """No more than there are."""
        if self.used > WINDOWS:
            raise BadState(f"{self.used} windows of {WINDOWS}")

    def full(self) -> cython.bint:
        """Has the last one been given out?"""
        return self.used == WINDOWS

    def find(self, frame: cython.uint) -> cython.uint:
        """The engine-physical address of a frame's window, opened if need be.

        The caller forgets all of them, and what maps them, when they are full.
        """
        i: cython.uint
        for i in range(self.used):
            if self.frame_of[i] == frame:
                return self.address + 4096 * i
        i = self.used
        self.frame_of[i] = frame
        self.used += 1
        return self.address + 4096 * i

    def forget(self) -> cython.int:
        """Close them all."""
        self.used = 0
        return 0

    def target(self, window: cython.uint) -> cython.uint:
        """The guest-physical frame behind a window, by number."""
        if window >= self.used:
            raise EngineFailure(f"access to window {window} of {self.used}")
        return self.frame_of[window]
