from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadow cimport ShadowMmu

cdef class Delivery:
    cdef CpuState cpu
    cdef GuestMemory memory
    cdef GuestPaging paging
    cdef ShadowMmu shadow
    cdef unsigned int[::1] stack
    cdef unsigned int[::1] places
    cdef unsigned int low
    cdef unsigned int high
    cdef unsigned int stack_low
    cdef unsigned int stack_high
    cdef unsigned int value
    cdef public unsigned long long delivered
    cdef public object trap

    cpdef int deliver(self, unsigned int vector, int error, bint software, unsigned int return_eip) except -1
    cdef int deliver_in_real_mode(self, unsigned int vector, unsigned int return_ip) except -1
    cdef int push_word(self, unsigned int value) except -1
    cdef int attempt(self, unsigned int vector, int error, bint software, unsigned int return_eip) except -2
    cdef int read(self, unsigned int address) except -2
    cdef int descriptor(self, unsigned int selector, unsigned int outside) except -2
    cdef int page_fault(self, unsigned int address) except -2
