from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.devicememory cimport DeviceMemory
from vmm.core.mmu.faultmask cimport FaultMask
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadowpages cimport ShadowPages
from vmm.core.mmu.shadowroots cimport ShadowRoots

cdef class ShadowMmu(ShadowRoots):
    cdef FaultMask fault_mask
    cdef public unsigned int unchanged_at
    # the outcome of the latest resolve()
    cdef public unsigned int guest_error
    cdef public unsigned int target
    cdef readonly DeviceMemory devices

    cdef int flush_if_stale(self) except -1
    cdef bint is_traced(self, unsigned int frame) noexcept
    cdef bint is_in_use(self, unsigned int frame) noexcept
    cdef int resolve(self, unsigned int address, unsigned int error) except -1
    cdef bint is_mapped(self, unsigned int address) noexcept
    cdef int code_written(self, unsigned int address, unsigned int frame) except -1
    cdef int fill(self, unsigned int address, bint write, bint fetch) except -1
    cdef unsigned int link_of(self, unsigned int root, unsigned int address) noexcept
    cdef unsigned int location(self, unsigned int address) noexcept
    cdef Py_ssize_t fetched_from(self, unsigned int address) except? -2
    cdef unsigned int fetch(self, unsigned int address, unsigned char[::1] into, unsigned int at, unsigned int most) except? 0xFFFFFFFF
    cdef int drop_translation(self, unsigned int address, unsigned int entry) except -1
    cdef bint has_translation(self, unsigned int address, unsigned int entry) noexcept
    cdef bint makes_executable(self, unsigned int address, unsigned int error) except? True
    cdef bint lets_fault_through(self, unsigned int address, unsigned int error) noexcept
    cdef int log_write(self, unsigned int address, unsigned int frame, bint fetch) except -1
    cdef int announce(self, unsigned int guest) except -1
    cdef int release(self, unsigned int guest) except -1
