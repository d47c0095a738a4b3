from vmm.core.curtain cimport Curtain
from vmm.core.paging cimport GuestPaging
from vmm.core.shadowpages cimport ShadowPages

cdef class FaultMask:
    cdef GuestPaging paging
    cdef ShadowPages pages
    cdef Curtain curtain

    cdef bint lets_through(self, unsigned int location, unsigned int error) noexcept
    cdef unsigned int guest_error(self, unsigned int error) noexcept
