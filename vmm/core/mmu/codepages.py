"""Which page frames hold code that CPUs may have translated, where there are several CPUs.

An engine notices when its own CPU stores to code that it has translated, but not when
another one does. So with several CPUs a frame is either executable in the shadow or
writable, for all of them: a store to code faults once, the frame's mappings lose the
right to execute, and every CPU forgets its translations of the frame before it runs on.

A frame that is stored to and executed from in turn, or whose code stores to its own page, as
the start-up code of a second processor does, is *mixed*: both are allowed, and a CPU
forgets its translations of it each time it is switched to.
"""

import cython

from vmm.core.saved import ARRAY, CUSTOM, U64, Fields

PLAIN = cython.declare(cython.uchar, 0)
CODE = cython.declare(cython.uchar, 1)
MIXED = cython.declare(cython.uchar, 2)
# So often a frame may turn from code to data before it is mixed.
CHANGES = cython.declare(cython.uchar, 16)
MOST_MIXED = 64


@cython.final
@cython.cclass
class CodePages:
    """The state of each of `frames` page frames, for `cpus` CPUs."""

    SAVED = Fields(
        {ARRAY: "state changes", U64: "stores", CUSTOM: "mixed stale"},
        wiring="frames",
    )

    def __init__(self, frames, cpus):
        self.frames = frames
        self.state = bytearray(frames)
        self.changes = bytearray(frames)
        self.mixed = []
        self.stores = 0
        self.stale = [set() for _ in range(cpus)]

    def _save_mixed(self):
        """For `vmm.core.saved`."""
        return list(self.mixed)

    def _load_mixed(self, value):
        """The same."""
        self.mixed = [self.frame(number) for number in value[:MOST_MIXED]]

    def _save_stale(self):
        """The same."""
        return [sorted(frames) for frames in self.stale]

    def _load_stale(self, value):
        """The same."""
        if len(value) != len(self.stale):
            raise ValueError(f"{len(value)} CPUs, expected {len(self.stale)}")
        self.stale = [{self.frame(number) for number in frames} for frames in value]

    def frame(self, number):
        """A frame's number, if there is such a frame."""
        if type(number) is not int or not 0 <= number < self.frames:
            raise ValueError(f"frame {number!r} of {self.frames}")
        return number

    def is_code(self, frame: cython.uint) -> cython.bint:
        """Is the frame executable, and not writable?"""
        return frame < self.frames and self.state[frame] == CODE

    def is_watched(self, frame: cython.uint) -> cython.bint:
        """Is the frame executable, if only in turns?"""
        return self.state[frame] != PLAIN

    def is_mixed(self, frame: cython.uint) -> cython.bint:
        """Is the frame executable and writable at once?"""
        return self.state[frame] == MIXED

    def executed(self, frame):
        """The frame becomes executable."""
        self.state[frame] = CODE

    def written(self, frame, by_itself):
        """A store to code, to its own page or not: answers whether the frame becomes plain.

        If not it is mixed from now on, and stays executable.
        """
        self.stores += 1
        for stale in self.stale:
            stale.add(int(frame))
        if self.changes[frame] < CHANGES:
            self.changes[frame] += 1
        if (by_itself or self.changes[frame] == CHANGES) and len(self.mixed) < MOST_MIXED:
            self.state[frame] = MIXED
            self.mixed.append(int(frame))
            return False
        self.state[frame] = PLAIN
        return True

    def take_stale(self, index, mixed):
        """The frames that a CPU must forget before it runs, after another one has.

        Those that are `mixed` may be left for later, until an instruction that serializes.
        """
        stale = self.stale[index]
        self.stale[index] = set()
        return sorted(stale.union(self.mixed) if mixed else stale)
