"""Which pages of the logged slots were written since somebody last asked.

Kept by page frame of the host, for two slots may show the same bytes: a store through one of
them is a store to both. A frame is *clean* while some slot that logs it has not seen it
written; the shadow maps a clean frame read-only, so that the first store to it exits
(as KVM's does: Linux, virt/kvm/kvm_main.c, kvm_get_dirty_log). What the monitor stores for
the guest, or for a device, says so itself.
"""

from array import array

import cython

from vmm.core.errors import BadSlots
from vmm.core.saved import Fields


def bitmap_of(pages, slot):
    """A bit for each page of a slot, set for those numbered in `pages`."""
    bits = bytearray(-(-(slot.size >> 12) // 8))
    for page in pages:
        bits[page >> 3] |= 1 << (page & 7)
    return bytes(bits)


@cython.final
@cython.cclass
class DirtyLog:
    """The logs of all slots that have one, for a buffer of `host_count` page frames.

    `on` says whether there is any; `clean` has a byte for each frame.
    """

    SAVED = Fields(elsewhere="logs", derived="on clean first last written_pages")

    def __init__(self, host_count):
        self.on = False
        self.clean = bytearray(host_count)
        self.logs = {}
        self.first = self.last = array("I")
        self.written_pages = []

    def follow(self, slots):
        """There is a new list of slots. A slot that stays as it was keeps its log.

        What is logged from now on has no page written yet.
        """
        kept = self.logs
        self.logs = {}
        first, last = array("I"), array("I")
        self.written_pages = []
        i: cython.uint
        for i in range(len(self.clean)):
            self.clean[i] = 0
        for slot in slots:
            if not slot.logging:
                continue
            pages = kept.get(slot)
            if pages is None:
                pages = bytearray(slot.size >> 12)
            start = slots.host(slot) >> 12
            self.logs[slot] = pages
            self.written_pages.append(pages)
            first.append(start)
            last.append(start + len(pages) - 1)
            for i in range(len(pages)):
                if not pages[i]:
                    self.clean[start + i] = 1
        self.first = first
        self.last = last
        self.on = bool(self.logs)

    def written(self, frame: cython.uint) -> cython.int:
        """Something is stored to this frame of the host: every slot that logs it has it now."""
        i: cython.Py_ssize_t
        if self.clean[frame]:
            self.clean[frame] = 0
            for i in range(len(self.first)):
                if self.first[i] <= frame <= self.last[i]:
                    self.written_pages[i][frame - self.first[i]] = 1
        return 0

    def frames(self):
        """The frames of the host that some slot logs, as a set."""
        found = set()
        for i in range(len(self.first)):
            found.update(range(self.first[i], self.last[i] + 1))
        return found

    def is_clean(self, frame):
        """Does the first store to this frame of the host have to be seen?"""
        return bool(self.clean[frame])

    def take(self, slot):
        """The pages of a slot that were written, by number, and where the slot begins in the host.

        They count as clean from now on: the caller must have stores to them seen. Raises
        `BadSlots` for a slot that is not in the list, or has no log.
        """
        pages = self.logs.get(slot)
        if pages is None:
            raise BadSlots(f"slot {slot}: not in the list of slots, or without a log")
        start = self.first[list(self.logs).index(slot)]
        found = []
        at = pages.find(1)
        while at >= 0:
            found.append(at)
            pages[at] = 0
            self.clean[start + at] = 1
            at = pages.find(1, at + 1)
        return found, int(start)

    def bitmap(self, slot):
        """The same as bytes: bit i of byte j is page 8 * j + i."""
        return bitmap_of(self.take(slot)[0], slot)

    def restore(self, slot, found):
        """Have these pages of a slot, by number, count as written: for a machine that was saved."""
        start = self.first[list(self.logs).index(slot)]
        for page in found:
            self.written(start + page)
            self.logs[slot][page] = 1

    def state(self):
        """{slot: the numbers of its pages that were written}, without taking them."""
        return {
            slot: [number for number, written in enumerate(pages) if written]
            for slot, pages in self.logs.items()
        }
