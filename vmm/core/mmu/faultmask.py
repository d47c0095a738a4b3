"""Which page faults reach the guest without an exit.

VT-x compares a page fault's error code with a mask and a match (Intel SDM vol. 3,
section 25.2). The monitor sets them so that faults of ring 3 with the reserved bit clear
stay in the guest, and all others exit. So it must see to it that whatever it hides from
ring 3 faults with a reserved bit: shadow entries that it has not filled are *armed*, and
only what the guest itself says is not present is left plainly not present, as in KVM's
bypass_guest_pf of 2007 (mmu.c, shadow_notrap_nonpresent_pte). A right that it withholds
from a present entry cannot be marked; while there is one, every fault on a present entry
exits (the mask then looks at the present bit instead).
"""

import cython

from vmm.core.mmu.curtain import Curtain
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadowpages import ShadowPages
from vmm.core.saved import Fields

PRESENT = cython.declare(cython.ulonglong, 0x01)
# A leaf whose guest entry is not present; anything else not present is armed.
NOT_THERE = cython.declare(cython.ulonglong, 0x400)
TABLE = cython.declare(cython.uint, 1)

ERROR_USER = cython.declare(cython.uint, 4)
ERROR_FETCH = cython.declare(cython.uint, 16)


@cython.final
@cython.cclass
class FaultMask:
    """Judges the faults of one CPU as the processor would, from the shadow alone."""

    SAVED = Fields(
        wiring="paging pages curtain",
    )

    def __init__(self, paging: GuestPaging, pages: ShadowPages, curtain: Curtain):
        self.paging = paging
        self.pages = pages
        self.curtain = curtain

    def lets_through(self, location: cython.uint, error: cython.uint) -> cython.bint:
        """Does the fault at this leaf, 0 for none, reach the guest without an exit?"""
        pages: ShadowPages = self.pages
        if not location or not error & ERROR_USER or self.curtain.is_down:
            return False
        page: cython.uint = location >> 9
        if pages.kind[page] != TABLE:
            return False
        # What the guest announced may be behind its notices, unless those lower the curtain.
        if pages.announced[pages.frame_of[page]] and not self.curtain.word:
            return False
        entry: cython.ulonglong = pages.entries[location]
        if not entry & PRESENT:
            return entry == NOT_THERE
        # A fetch may have met the no-execute bit that only this engine needs.
        return pages.withheld == 0 and not error & ERROR_FETCH

    def guest_error(self, error: cython.uint) -> cython.uint:
        """The error code that the guest finds: of fetches it hears only with no-execute."""
        if error & ERROR_FETCH and self.paging.no_execute and self.paging.pae():
            return error & 0x17
        return error & 7
