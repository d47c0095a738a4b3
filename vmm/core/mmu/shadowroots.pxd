from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.curtain cimport Curtain
from vmm.core.mmu.follow cimport Follower
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadowpages cimport ShadowPages
from vmm.core.mmu.unsync cimport OutOfStep

cdef class ShadowRoots:
    cdef GuestMemory memory
    cdef GuestPaging paging
    cdef CpuState cpu
    cdef readonly ShadowPages pages
    cdef Follower follower
    cdef OutOfStep unsync
    cdef public Curtain curtain
    cdef public unsigned int[::1] root_key
    cdef public unsigned char[::1] root_used
    cdef public unsigned long long[::1] root_stamp
    cdef unsigned int first_root
    cdef unsigned int root_count
    cdef public unsigned long long generation
    cdef public unsigned int current
    cdef public unsigned long long stamp
    cdef public bint moved
    cdef public bint strolled
    cdef public unsigned long long resets

    cpdef int load_root(self) except -1
    cpdef int reset(self) except -1
    cdef int start_afresh(self) except -1
    cdef int mode_changed(self) except -1
    cdef bint runs_in_another_mode(self) noexcept
    cdef int empty_root(self, unsigned int root) except -1
    cdef int check_pointers(self) except -1
    cdef unsigned int directory(self, unsigned int quarter) except? 0
    cdef int link_directories(self) except -1
    cdef int link_ahead(self, unsigned int quarter, unsigned int directory) except -1
    cdef unsigned int link(self, unsigned int address, bint override) except? 0
    cdef unsigned int table(self, unsigned int address) except? 0
    cdef unsigned int host_of(self, unsigned long long entry) noexcept
