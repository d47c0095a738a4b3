from vmm.core.cpu.cpustate cimport CpuState

cdef class FlagKeeper:
    cdef CpuState cpu
    cdef unsigned char[::1] code
    cdef public object call_before
    cdef public list sites
    cdef readonly list wanted
    cdef unsigned int source
    cdef readonly bint kept
    cdef readonly unsigned int at
    cdef unsigned long long count
    cdef unsigned int flags

    cpdef void begin(self) noexcept
    cpdef int look(self, unsigned int at, unsigned int end, unsigned int address) except -1
    cdef unsigned int source_of(self, unsigned int operation) noexcept
    cdef bint asks(self, unsigned int condition) noexcept
    cdef int want(self, unsigned int address) except -1
    cdef int keep(self, unsigned int address, unsigned long long count) except -1
    cdef int put_back(self, unsigned long long count) except -1
