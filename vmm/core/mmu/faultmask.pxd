from vmm.core.mmu.curtain cimport Curtain
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadowpages cimport ShadowPages

cdef class FaultMask:
    cdef GuestPaging paging
    cdef ShadowPages pages
    cdef Curtain curtain

    cdef bint lets_through(self, unsigned int location, unsigned int error) noexcept
    cdef unsigned int guest_error(self, unsigned int error) noexcept
