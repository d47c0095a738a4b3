from vmm.core.localapic cimport LocalApic
from vmm.core.memory cimport GuestMemory

cdef class DeviceMemory:
    cdef readonly LocalApic apic
    cdef object bus
    cdef GuestMemory memory

    cpdef unsigned int decodes(self, unsigned int frame) except? 0xFFFFFFFF
    cpdef unsigned int read(self, unsigned int address, unsigned int size) except? 0xFFFFFFFF
    cpdef int write(self, unsigned int address, unsigned int size, unsigned int value) except -1
