from vmm.core.apic.interrupts cimport ApicInterrupts

cdef class LocalApic(ApicInterrupts):
    cdef public unsigned int mirror

    cpdef bint is_at(self, unsigned int physical) noexcept
    cpdef unsigned int load(self, unsigned int offset, unsigned int size) except? 0xFFFFFFFF
    cpdef int store(self, unsigned int offset, unsigned int size, unsigned int value) except -1
    cpdef unsigned int read(self, unsigned int offset) except? 0xFFFFFFFF
    cpdef int write(self, unsigned int offset, unsigned int value) except -1
    cdef int write_register(self, unsigned int offset, unsigned int value) except -1
    cdef int write_spurious(self, unsigned int value) except -1
    cdef int write_lvt(self, unsigned int number, unsigned int value) except -1
