from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.follow cimport Follower
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadowpages cimport ShadowPages

cdef class OutOfStep:
    cdef GuestMemory memory
    cdef GuestPaging paging
    cdef ShadowPages pages
    cdef Follower follower

    cdef bint can_stray(self, unsigned int frame) noexcept
    cdef int let_stray(self, unsigned int frame) except -1
    cdef int bring_into_step(self) except -1
    cdef int bring_entry_into_step(self, unsigned int address) except -1
