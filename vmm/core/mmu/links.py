"""Many small lists of shadow entries in one pool: who maps this page, who links this table."""

from array import array

import cython

from vmm.core.saved import Fields

# A single fill of a large page adds at most 512 links.
RESERVE = cython.declare(cython.uint, 1024)


@cython.final
@cython.cclass
class Links:
    """Singly linked lists; the caller keeps the heads (0 is the empty list)."""

    SAVED = Fields(
        wiring="size",
        elsewhere="location follower free top available",
    )

    def __init__(self, size):
        self.size = size
        self.location = array("I", bytes(4 * size))
        self.follower = array("I", bytes(4 * size))
        self.clear()

    def nearly_full(self) -> cython.bint:
        """Time to drop the whole shadow and start afresh?"""
        return self.available < RESERVE

    def add(self, heads: cython.uint[::1], head: cython.uint, location: cython.uint) -> cython.int:
        """Put `location` on the list."""
        node: cython.uint = self.free
        if node:
            self.free = self.follower[node]
        else:
            node = self.top
            self.top += 1
        self.available -= 1
        self.location[node] = location
        self.follower[node] = heads[head]
        heads[head] = node
        return 0

    def remove(
        self, heads: cython.uint[::1], head: cython.uint, location: cython.uint
    ) -> cython.int:
        """Take `location` off the list; no harm if it is not there."""
        node: cython.uint = heads[head]
        before: cython.uint = 0
        while node:
            if self.location[node] == location:
                if before:
                    self.follower[before] = self.follower[node]
                else:
                    heads[head] = self.follower[node]
                self.follower[node] = self.free
                self.free = node
                self.available += 1
                return 1
            before = node
            node = self.follower[node]
        return 0

    def clear(self) -> cython.int:
        """Forget every list; the caller clears its heads."""
        self.free = 0
        self.top = 1
        self.available = self.size - 1
        return 0
