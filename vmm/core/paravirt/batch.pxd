from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadow cimport ShadowMmu

cdef class BatchQueue:
    cdef GuestMemory memory
    cdef GuestPaging paging
    cdef ShadowMmu shadow
    cdef public object peers
    cdef public unsigned int header
    cdef public unsigned int first_header
    cdef readonly unsigned int index
    cdef public bint has_home
    cdef public unsigned int capacity
    cdef public unsigned int fault_page
    cdef public unsigned int fault_entry
    cdef public unsigned int image_start
    cdef public unsigned int image_end
    cdef public bint attached
    cdef public unsigned int offered
    cdef public unsigned long long updates
    cdef public unsigned long long notices
    cdef public unsigned long long drains
    cdef public unsigned int largest

    cdef unsigned int depth(self) except? 0xFFFFFFFE
    cpdef int drain(self) except -1
    cdef int drain_own(self) except -1
    cdef bint is_served(self) except? True
    cdef int check_own_fault_page(self) except -1
    cpdef int apply(self, unsigned int record) except -1
    cdef int publish_fault_page(self, unsigned int address) except -1
    cdef int check_fault_page(self) except -1
    cdef int forget_fault_page(self) except -1
