from vmm.core.ports.filtervm cimport FilterMachine

cdef class PortFilters:
    cdef unsigned char[::1] by_port
    cdef public list machines
    cdef public unsigned long long[::1] answered
    cdef public unsigned long long[::1] passed
    cdef readonly unsigned int value

    cpdef bint answers(self, unsigned int port, unsigned int size, unsigned long long now) except? 1
