from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.shadowpages cimport ShadowPages

cdef class Follower:
    cdef GuestMemory memory
    cdef ShadowPages pages

    cdef unsigned int copy_of(self, unsigned int entry) noexcept
    cdef unsigned int copy_in(self, unsigned int frame, unsigned int entry) noexcept
    cdef unsigned long long guest_entry(self, unsigned int frame, unsigned int half, unsigned int index) except? 0
    cdef int entry_written(self, unsigned int address) except -1
    cdef int leaf_written(self, unsigned int location, unsigned long long entry) except -1
