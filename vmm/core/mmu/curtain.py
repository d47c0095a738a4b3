"""The curtain: a root that maps nothing below `CURTAIN_END`, for the ROM to load at will.

VT-x has a list of values that MOV to CR3 may load without an exit (Intel SDM vol. 3, the
CR3-target controls). One of them is the curtain's root, and the ROM gets it through the
queue's header. A ROM that lowers the curtain whenever it changes an entry can rely on the
first access below to exit; and the monitor can rely on knowing every entry while the
curtain is up, so that faults below may reach the guest without an exit.
"""

import cython

from vmi.queue import CURTAIN_END
from vmm.core.cpu.cpustate import CpuState
from vmm.core.memory import GuestMemory
from vmm.core.mmu.shadowpages import ShadowPages
from vmm.core.saved import FLAG, U32, Fields

PRESENT = cython.declare(cython.ulonglong, 0x01)
# The last root of the roots' page; a single CPU has the first 64.
ROOT = cython.declare(cython.uint, 127)
# The one quarter that is not hidden.
QUARTER = cython.declare(cython.uint, CURTAIN_END >> 30)


@cython.final
@cython.cclass
class Curtain:
    """One CPU's curtain; there is none before `hang`."""

    SAVED = Fields(
        {U32: "word", FLAG: "is_down"},
        wiring="memory cpu pages",
    )

    def __init__(self, memory: GuestMemory, cpu: CpuState, pages: ShadowPages):
        self.memory = memory
        self.cpu = cpu
        self.pages = pages
        self.word = 0
        self.is_down = False

    def hang(self, word):
        """Offer it through the word of the queue's header at this guest-physical address."""
        self.word = word
        self.tell_up()

    def value(self) -> cython.uint:
        """What loads it."""
        return self.pages.pool_address + 32 * ROOT

    def lower(self, root: cython.uint) -> cython.int:
        """The guest has loaded it while it ran on `root`, whose upper quarter stays."""
        pages: ShadowPages = self.pages
        link: cython.ulonglong = pages.entries[4 * root + QUARTER]
        if link & PRESENT:
            pages.store_link(4 * ROOT + QUARTER, link)
        else:
            pages.drop_link(4 * ROOT + QUARTER)
        self.is_down = True
        pages.settle()
        return self.cpu.load_root(self.value())

    def lift(self, root: cython.uint) -> cython.int:
        """Back to the whole of `root`, if it is down."""
        if not self.is_down:
            return 0
        self.tell_up()
        self.pages.settle()
        return self.cpu.load_root(self.pages.pool_address + 32 * root)

    def tell_up(self) -> cython.int:
        """Another root is loaded: the ROM may lower the curtain again."""
        self.is_down = False
        if self.word:
            self.memory.write32(self.word, self.value())
        return 0
