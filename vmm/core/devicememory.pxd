from vmm.core.localapic cimport LocalApic

cdef class DeviceMemory:
    cdef readonly LocalApic apic
    cdef object bus
    cdef unsigned int[::1] frames

    cpdef unsigned int decodes(self, unsigned int frame) except? 0xFFFFFFFF
    cpdef unsigned int read(self, unsigned int address, unsigned int size) except? 0xFFFFFFFF
    cpdef int write(self, unsigned int address, unsigned int size, unsigned int value) except -1
