"""The guest's own page tables, walked by software (Intel SDM vol. 3, sections 4.3 and 4.4).

32-bit tables with 4 KiB and 4 MiB pages, and PAE tables with 4 KiB and 2 MiB pages
and no-execute. The control registers here are the guest's idea of them; the
processor really runs on the shadow's.
"""

from array import array

import cython

from vmm.core.memory import GuestMemory
from vmm.core.saved import ARRAY, FLAG, U32, U64, Fields

PRESENT = cython.declare(cython.ulonglong, 0x01)
WRITABLE = cython.declare(cython.ulonglong, 0x02)
USER = cython.declare(cython.ulonglong, 0x04)
ACCESSED = cython.declare(cython.ulonglong, 0x20)
DIRTY = cython.declare(cython.ulonglong, 0x40)
LARGE = cython.declare(cython.ulonglong, 0x80)
# Bits 12-51 of a 64-bit entry.
FRAME = cython.declare(cython.ulonglong, 0xFFFFFFFFFF000)
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)

CR0_WP = cython.declare(cython.uint, 0x10000)
CR4_PSE = cython.declare(cython.uint, 0x10)
CR4_PAE = cython.declare(cython.uint, 0x20)

ERROR_PRESENT = cython.declare(cython.uint, 1)
ERROR_WRITE = cython.declare(cython.uint, 2)
ERROR_USER = cython.declare(cython.uint, 4)

# With paging off every address is its own translation, as if one large,
# always accessed and dirty page allowed everything.
IDENTITY_ENTRY = cython.declare(cython.ulonglong, 0xE7)
# Where a frame beyond 4 GiB leads: no RAM is there.
NOWHERE = cython.declare(cython.uint, 0xFFFFF000)


@cython.final
@cython.cclass
class GuestPaging:
    """Walks; the result of the latest walk stays in the object's fields.

    `no_execute` is the guest's EFER.NXE.
    """

    SAVED = Fields(
        {
            ARRAY: "pointers",
            U32: "pde_address pte_address physical error",
            U64: "pde pte",
            FLAG: "large user writable executable marked",
        },
        wiring="memory",
        elsewhere="cr0 cr3 cr4 no_execute",
    )

    def __init__(self, memory: GuestMemory):
        self.memory = memory
        self.cr0 = 0x11
        self.cr3 = 0
        self.cr4 = 0
        self.no_execute = False
        self.pointers = array("Q", bytes(8 * 4))
        self.pde = self.pte = 0
        self.pde_address = self.pte_address = 0
        self.physical = 0
        self.large = self.user = self.writable = self.executable = False
        self.error = 0
        self.marked = False

    def enabled(self) -> cython.bint:
        """CR0.PG, as the guest set it."""
        return (self.cr0 >> 31) != 0

    def write_protect(self) -> cython.bint:
        """CR0.WP, as the guest set it: do read-only pages bind ring 0 too?"""
        return (self.cr0 & CR0_WP) != 0

    def pae(self) -> cython.bint:
        """CR4.PAE, as the guest set it."""
        return (self.cr4 & CR4_PAE) != 0

    def mode(self) -> cython.uint:
        """What decides how tables are read: CR0.WP, CR4.PSE, CR4.PAE and EFER.NXE."""
        bits: cython.uint = (self.cr0 & CR0_WP) | (self.cr4 & (CR4_PSE | CR4_PAE))
        return bits | 1 if self.no_execute else bits

    def load_pointers(self) -> cython.int:
        """Load the four directory pointers, as MOV CR3 does under PAE.

        Stores to them take effect only then (SDM vol. 3, section 4.4.1).
        """
        i: cython.uint
        table: cython.uint = (self.cr3 >> 5) << 5
        if self.enabled() and self.pae():
            for i in range(4):
                self.pointers[i] = 0
                if self.memory.contains(table):
                    self.pointers[i] = self.memory.read64(table + 8 * i)
        return 0

    def pointer(self, quarter: cython.uint) -> cython.ulonglong:
        """The directory pointer of a quarter of the address space."""
        return self.pointers[quarter]

    def read(self, address, size):
        """Guest-virtual memory as bytes; stops short where nothing is mapped."""
        out = bytearray()
        while len(out) < size:
            here = (address + len(out)) & 0xFFFFFFFF
            if not self.walk(here):
                break
            length = min(size - len(out), 4096 - (here & 0xFFF))
            out += self.memory.read(self.physical, length)
        return bytes(out)

    def walk(self, address: cython.uint) -> cython.bint:
        """Find the entries that map `address`; false when one is not present.

        A table outside RAM counts as one without present entries.
        """
        self.pte = 0
        self.pde = 0
        self.executable = True
        if not self.enabled():
            self.pde = IDENTITY_ENTRY
            self.large = self.user = self.writable = True
            self.physical = address
            return True
        if self.pae():
            return self.walk_pae(address)
        self.pde_address = ((self.cr3 >> 12) << 12) + (address >> 22) * 4
        if not self.memory.contains(self.pde_address):
            return False
        self.pde = self.memory.read32(self.pde_address)
        if not self.pde & PRESENT:
            return False
        self.large = (self.pde & LARGE) != 0 and (self.cr4 & CR4_PSE) != 0
        if self.large:
            self.user = (self.pde & USER) != 0
            self.writable = (self.pde & WRITABLE) != 0
            self.physical = cython.cast(
                cython.uint, ((self.pde >> 22) << 22) | (address & 0x3FFFFF)
            )
            return True
        self.pte_address = cython.cast(
            cython.uint, ((self.pde >> 12) << 12) + ((address >> 12) & 0x3FF) * 4
        )
        if not self.memory.contains(self.pte_address):
            return False
        self.pte = self.memory.read32(self.pte_address)
        if not self.pte & PRESENT:
            return False
        self.user = (self.pde & self.pte & USER) != 0
        self.writable = (self.pde & self.pte & WRITABLE) != 0
        self.physical = cython.cast(cython.uint, ((self.pte >> 12) << 12) | (address & 0xFFF))
        return True

    def walk_pae(self, address: cython.uint) -> cython.bint:
        """The same for three levels of 64-bit entries."""
        table: cython.ulonglong = self.pointers[address >> 30]
        if not table & PRESENT or (table & FRAME) > LOW_32:
            self.pde_address = NOWHERE
            return False
        self.pde_address = cython.cast(cython.uint, (table & FRAME) + ((address >> 21) & 0x1FF) * 8)
        if not self.memory.contains(self.pde_address):
            return False
        self.pde = self.memory.read64(self.pde_address)
        if not self.pde & PRESENT:
            return False
        self.large = (self.pde & LARGE) != 0
        if self.large:
            self.user = (self.pde & USER) != 0
            self.writable = (self.pde & WRITABLE) != 0
            self.executable = not self.no_execute or not self.pde >> 63
            self.physical = self.reached(self.pde, 0x1FFFFF, address)
            return True
        if (self.pde & FRAME) > LOW_32:
            # Not the table of the walk before: that one is RAM, and this is not.
            self.pte_address = NOWHERE
            return False
        self.pte_address = cython.cast(
            cython.uint, (self.pde & FRAME) + ((address >> 12) & 0x1FF) * 8
        )
        if not self.memory.contains(self.pte_address):
            return False
        self.pte = self.memory.read64(self.pte_address)
        if not self.pte & PRESENT:
            return False
        self.user = (self.pde & self.pte & USER) != 0
        self.writable = (self.pde & self.pte & WRITABLE) != 0
        self.executable = not self.no_execute or not (self.pde | self.pte) >> 63
        self.physical = self.reached(self.pte, 0xFFF, address)
        return True

    def reached(
        self, entry: cython.ulonglong, offset_mask: cython.uint, address: cython.uint
    ) -> cython.uint:
        """Where an entry leads; there is no memory beyond 4 GiB."""
        if (entry & FRAME) > LOW_32:
            return NOWHERE | (address & 0xFFF)
        return cython.cast(
            cython.uint, (entry & FRAME & ~cython.cast(cython.ulonglong, offset_mask))
        ) | (address & offset_mask)

    def mark(self, write: cython.bint) -> cython.int:
        """Set the accessed and dirty bits that the latest walk implies.

        `marked` says whether one was missing.
        """
        self.marked = False
        if not self.enabled():
            return 0
        bits: cython.ulonglong = ACCESSED
        if write:
            bits |= DIRTY
        wanted: cython.ulonglong = self.pde | (bits if self.large else ACCESSED)
        if wanted != self.pde:
            self.marked = True
            self.pde = wanted
            self.memory.write32(self.pde_address, cython.cast(cython.uint, wanted & LOW_32))
        if not self.large:
            wanted = self.pte | bits
            if wanted != self.pte:
                self.marked = True
                self.pte = wanted
                self.memory.write32(self.pte_address, cython.cast(cython.uint, wanted & LOW_32))
        return 0

    def translate(
        self, address: cython.uint, write: cython.bint, user: cython.bint
    ) -> cython.Py_ssize_t:
        """The guest-physical address, as the processor would find it.

        Sets accessed and dirty bits. Where the guest's tables deny the access the
        answer is -1 and `error` the page-fault error code.
        """
        error: cython.uint = 0
        if write:
            error |= ERROR_WRITE
        if user:
            error |= ERROR_USER
        self.error = error
        if not self.walk(address):
            return -1
        self.error = error | ERROR_PRESENT
        if user and not self.user:
            return -1
        if write and not self.writable and (user or self.write_protect()):
            return -1
        self.mark(write)
        return self.physical
