from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.shadowpages cimport ShadowPages

cdef class Curtain:
    cdef GuestMemory memory
    cdef CpuState cpu
    cdef ShadowPages pages
    cdef public unsigned int word
    cdef public bint is_down

    cdef unsigned int value(self) noexcept
    cdef int lower(self, unsigned int root) except -1
    cdef int lift(self, unsigned int root) except -1
    cdef int tell_up(self) except -1
