"""The guest's own page tables, walked by software (Intel SDM vol. 3, section 4.3).

Two-level 32-bit tables with 4 KiB and 4 MiB pages. The control registers here are
the guest's idea of them; the processor really runs on the shadow's.
"""

import cython

from vmm.core.memory import GuestMemory

PRESENT = cython.declare(cython.uint, 0x01)
WRITABLE = cython.declare(cython.uint, 0x02)
USER = cython.declare(cython.uint, 0x04)
ACCESSED = cython.declare(cython.uint, 0x20)
DIRTY = cython.declare(cython.uint, 0x40)
LARGE = cython.declare(cython.uint, 0x80)

CR0_WP = cython.declare(cython.uint, 0x10000)
CR4_PSE = cython.declare(cython.uint, 0x10)

ERROR_PRESENT = cython.declare(cython.uint, 1)
ERROR_WRITE = cython.declare(cython.uint, 2)
ERROR_USER = cython.declare(cython.uint, 4)

# With paging off every address is its own translation, as if one large,
# always accessed and dirty page allowed everything.
IDENTITY_ENTRY = cython.declare(cython.uint, 0xE7)


@cython.final
@cython.cclass
class GuestPaging:
    """Walks; the result of the latest walk stays in the object's fields."""

    def __init__(self, memory: GuestMemory):
        self.memory = memory
        self.cr0 = 0x11
        self.cr3 = 0
        self.cr4 = 0
        self.pde = self.pte = 0
        self.pde_address = self.pte_address = 0
        self.physical = 0
        self.large = self.user = self.writable = False
        self.error = 0

    def enabled(self) -> cython.bint:
        """CR0.PG, as the guest set it."""
        return (self.cr0 >> 31) != 0

    def write_protect(self) -> cython.bint:
        """CR0.WP, as the guest set it: do read-only pages bind ring 0 too?"""
        return (self.cr0 & CR0_WP) != 0

    def walk(self, address: cython.uint) -> cython.bint:
        """Find the entries that map `address`; false when one is not present.

        A table outside RAM counts as one without present entries.
        """
        self.pde = self.pte = 0
        if not self.enabled():
            self.pde = IDENTITY_ENTRY
            self.large = self.user = self.writable = True
            self.physical = address
            return True
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
            self.physical = ((self.pde >> 22) << 22) | (address & 0x3FFFFF)
            return True
        self.pte_address = ((self.pde >> 12) << 12) + ((address >> 12) & 0x3FF) * 4
        if not self.memory.contains(self.pte_address):
            return False
        self.pte = self.memory.read32(self.pte_address)
        if not self.pte & PRESENT:
            return False
        self.user = (self.pde & self.pte & USER) != 0
        self.writable = (self.pde & self.pte & WRITABLE) != 0
        self.physical = ((self.pte >> 12) << 12) | (address & 0xFFF)
        return True

    def mark(self, write: cython.bint) -> cython.int:
        """Set the accessed and dirty bits that the latest walk implies."""
        if not self.enabled():
            return 0
        bits: cython.uint = ACCESSED
        if write:
            bits |= DIRTY
        wanted: cython.uint = self.pde | (bits if self.large else ACCESSED)
        if wanted != self.pde:
            self.pde = wanted
            self.memory.write32(self.pde_address, wanted)
        if not self.large:
            wanted = self.pte | bits
            if wanted != self.pte:
                self.pte = wanted
                self.memory.write32(self.pte_address, wanted)
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
