from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.mmu.curtain cimport Curtain
from vmm.core.mmu.faultmask cimport FaultMask
from vmm.core.mmu.devicememory cimport DeviceMemory
from vmm.core.mmu.follow cimport Follower
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadowpages cimport ShadowPages
from vmm.core.mmu.unsync cimport OutOfStep

cdef class ShadowMmu:
    cdef GuestMemory memory
    cdef GuestPaging paging
    cdef CpuState cpu
    cdef readonly ShadowPages pages
    cdef Follower follower
    cdef OutOfStep unsync
    cdef public Curtain curtain
    cdef FaultMask fault_mask
    cdef public unsigned int[::1] root_key
    cdef public unsigned char[::1] root_used
    cdef public unsigned long long[::1] root_stamp
    cdef unsigned int first_root
    cdef unsigned int root_count
    cdef public unsigned long long generation
    cdef public unsigned int current
    cdef public unsigned long long stamp
    cdef public unsigned int unchanged_at
    cdef public bint moved
    cdef public bint strolled
    # the outcome of the latest resolve()
    cdef public unsigned int guest_error
    cdef public unsigned int target
    cdef public unsigned long long resets
    cdef readonly DeviceMemory devices

    cpdef int load_root(self) except -1
    cpdef int reset(self) except -1
    cdef int start_afresh(self) except -1
    cdef int mode_changed(self) except -1
    cdef bint runs_in_another_mode(self) noexcept
    cdef int empty_root(self, unsigned int root) except -1
    cdef int check_pointers(self) except -1
    cdef unsigned int directory(self, unsigned int quarter) except? 0
    cdef int flush_if_stale(self) except -1
    cdef bint is_traced(self, unsigned int frame) noexcept
    cdef bint is_in_use(self, unsigned int frame) noexcept
    cdef int resolve(self, unsigned int address, unsigned int error) except -1
    cdef bint is_mapped(self, unsigned int address) noexcept
    cdef int code_written(self, unsigned int address, unsigned int frame) except -1
    cdef int fill(self, unsigned int address, bint write, bint fetch) except -1
    cdef int link_directories(self) except -1
    cdef int link_ahead(self, unsigned int quarter, unsigned int directory) except -1
    cdef unsigned int link(self, unsigned int address, bint override) except? 0
    cdef unsigned int table(self, unsigned int address) except? 0
    cdef unsigned int location(self, unsigned int address) noexcept
    cdef Py_ssize_t fetched_from(self, unsigned int address) except? -2
    cdef int drop_translation(self, unsigned int address, unsigned int entry) except -1
    cdef bint has_translation(self, unsigned int address, unsigned int entry) noexcept
    cdef bint lets_fault_through(self, unsigned int address, unsigned int error) noexcept
    cdef unsigned int host_of(self, unsigned long long entry) noexcept
    cdef int log_write(self, unsigned int address, unsigned int frame, bint fetch) except -1
    cdef int announce(self, unsigned int guest) except -1
    cdef int release(self, unsigned int guest) except -1
