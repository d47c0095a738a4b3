"""Who may run where each virtual CPU has a host thread: guest code in parallel, the core alone.

One lock, the *turn*, is held by whoever works in the core: a CPU that serves an exit, or a
caller from outside. Guest code runs without it. What changes anything that guest code
relies on, shadow tables for one, also *stops the others* first: it closes the gate and
waits until no CPU is inside guest code. A CPU looks at the gate at each translated
block, which is between two instructions, and waits there for the turn to be given back.

A CPU that enters stores `inside` and then looks whether the gate is closed; who closes it
stores that and then looks who is inside. With a fence between the two on either side one
of them sees the other (Dekker's algorithm).
"""

import threading
from array import array

import cython

if not cython.compiled:
    from vmm.core.native import fence, relax

# Words from one CPU's to the next one's: a cache line.
STRIDE = cython.declare(cython.uint, 16)
# So often a CPU looks at a closed gate before it sleeps on the turn.
LOOKS = cython.declare(cython.uint, 4000)


@cython.final
@cython.cclass
class Gate:
    """The gate of one machine with `count` virtual CPUs, numbered from 0.

    `clock` is the latest virtual time that any of them has told of, in nanoseconds.
    """

    def __init__(self, count):
        self.count = count
        self.inside = array("I", bytes(4 * 16 * count))
        self.wanted = array("I", bytes(64))
        self.turn = threading.Lock()
        self.holder = 0
        self.clock = 0
        self.works = array("Q", bytes(8 * (count + 1)))

    # ---- the turn

    def lock(self):
        """The lock itself, for conditions that wait on it."""
        return self.turn

    def acquire(self):
        """Take the turn; waits for it, without polling."""
        self.turn.acquire()
        self.holder = threading.get_ident()

    def release(self):
        """Give the turn back."""
        self.holder = 0
        self.turn.release()

    def noted(self):
        """The calling thread has the turn back, from a condition that waited on it."""
        self.holder = threading.get_ident()

    def is_mine(self):
        """Does the calling thread have the turn?"""
        return self.holder == threading.get_ident()

    # ---- the gate; to close and to open it takes the turn

    def stop_others(self, index):
        """Close the gate and wait until no CPU but `index` is inside; -1 means none at all."""
        self.wanted[0] = 1
        i: cython.int
        mine: cython.int = index
        for i in range(cython.cast(cython.int, self.count)):
            if i != mine:
                with cython.nogil:
                    self.wait_for(i)

    def go_on(self):
        """Open it."""
        self.wanted[0] = 0

    def wait_for(self, index: cython.uint) -> cython.void:
        """Until a CPU is not inside: for a block of its code, or until the host runs it."""
        turn: cython.uint = 0
        fence()
        while self.inside[STRIDE * index]:
            turn += 1
            relax(turn)

    def is_closed(self) -> cython.bint:
        """Does somebody want all others to stop?"""
        return self.wanted[0] != 0

    def enter(self, index: cython.uint) -> cython.bint:
        """Guest code of a CPU runs from now on; false, and it does not, if the gate is closed."""
        self.works[index] += 1
        self.inside[STRIDE * index] = 1
        fence()
        if self.wanted[0]:
            self.inside[STRIDE * index] = 0
            return False
        return True

    def leave(self, index: cython.uint) -> cython.void:
        """It does no more."""
        fence()
        self.inside[STRIDE * index] = 0

    def others(self, index: cython.uint) -> cython.ulonglong:
        """A number that is another one whenever somebody but this CPU has run or worked."""
        i: cython.uint
        number: cython.ulonglong = 0
        for i in range(self.count + 1):
            if i != index:
                number += self.works[i]
        return number

    def note_outsider(self):
        """Somebody who is no CPU has worked."""
        self.works[self.count] += 1

    def wait_shortly(self) -> cython.bint:
        """Wait for the gate to open, but not for long: most stops are short. Is it open?"""
        i: cython.uint
        for i in range(LOOKS):
            if not self.wanted[0]:
                return True
            relax(i + 1)
        return False
