"""Leaf tables out of step with the guest's (KVM from 2008, mmu.c, kvm_unsync_page).

To the guest the shadow is a TLB, so a leaf table need not be followed store by store:
after the first store it may stray, untraced, until the guest invalidates.
"""

import cython

from vmm.core.memory import GuestMemory
from vmm.core.mmu.follow import Follower
from vmm.core.mmu.paging import GuestPaging
from vmm.core.mmu.shadowpages import ShadowPages
from vmm.core.saved import Fields

PRESENT = cython.declare(cython.ulonglong, 0x01)


@cython.final
@cython.cclass
class OutOfStep:
    """Lets tables stray and brings them back, as one CPU stores and invalidates.

    Which tables are out of step is a matter of the pages, which all CPUs share.
    """

    SAVED = Fields(
        wiring="memory paging pages follower",
    )

    def __init__(
        self, memory: GuestMemory, paging: GuestPaging, pages: ShadowPages, follower: Follower
    ):
        self.memory = memory
        self.paging = paging
        self.pages = pages
        self.follower = follower

    def can_stray(self, frame: cython.uint) -> cython.bint:
        """May this frame go out of step? Leaf tables only, and not too many at once."""
        pages: ShadowPages = self.pages
        directories: cython.uint = 4 * frame
        return pages.stray_count < len(pages.strays) and not (
            pages.directory_of[directories]
            | pages.directory_of[directories + 1]
            | pages.directory_of[directories + 2]
            | pages.directory_of[directories + 3]
        )

    def let_stray(self, frame: cython.uint) -> cython.int:
        """Stop tracing a leaf table until the next flush brings it back into step."""
        pages: ShadowPages = self.pages
        pages.out_of_step[frame] = 1
        pages.strays[pages.stray_count] = frame
        pages.stray_count += 1
        return 0

    def bring_into_step(self) -> cython.int:
        """Let every shadow table that strayed follow its guest's, and trace it again.

        Only what is present is looked at, as in KVM's sync_page: the rest comes by fault.
        """
        pages: ShadowPages = self.pages
        follower: Follower = self.follower
        i: cython.uint
        k: cython.uint
        half: cython.uint
        for i in range(pages.stray_count):
            frame: cython.uint = pages.strays[i]
            pages.out_of_step[frame] = 0
            for half in range(2):
                page: cython.uint = pages.table_of[2 * frame + half]
                if page:
                    for k in range(512):
                        if pages.entries[512 * page + k] & PRESENT:
                            follower.leaf_written(
                                512 * page + k, follower.guest_entry(frame, half, k)
                            )
            pages.trace(frame)
        pages.stray_count = 0
        return pages.flush_if_stale()

    def bring_entry_into_step(self, address: cython.uint) -> cython.int:
        """The same for the one entry that INVLPG is about."""
        paging: GuestPaging = self.paging
        if not self.pages.stray_count or not paging.enabled():
            return 0
        paging.walk(address)
        if paging.large or not paging.pde & PRESENT:
            return 0
        frame: cython.uint = self.memory.host(paging.pte_address >> 12)
        if frame < self.memory.host_count and self.pages.out_of_step[frame]:
            self.follower.entry_written(paging.pte_address)
        return 0
