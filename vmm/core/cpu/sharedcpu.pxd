from vmm.core.cpu.gate cimport Gate, relax
from vmm.core.cpu.vcpu cimport Vcpu

cdef class SharedCpu:
    cdef readonly Vcpu vcpu
    cdef readonly Gate gate
    cdef unsigned int index
    cdef object switch
    cdef object tell
    cdef unsigned long long seen
    cdef unsigned long long generation
    cdef unsigned long long code_changes
    cdef unsigned int[::1] next_flags
    cdef unsigned int address
    cdef unsigned int repeats
    cdef readonly bint wants_alone
    cdef bint alone
    cdef bint attention
    cdef object keep

    cdef void leave(self) noexcept nogil
    cpdef int take(self, bint exclusive, bint serializing) except -1
    cpdef int give(self, bint exclusive) except -1
    cdef int begin(self, bint exclusive, bint serializing) except -1
    cdef int serve_own(self, unsigned int number) except -1
    cdef int tell_time(self) except -1
    cdef unsigned long long changes(self) except? 0xFFFFFFFF
    cdef int go(self) except -1
    cdef int end(self, bint exclusive) except -1
    cdef void block(self, unsigned int address, unsigned int size, size_t place) noexcept nogil
    cdef void park(self) noexcept nogil
    cdef int repeated(self, unsigned int address) except -1
    cdef int sleep(self) except -1
    cdef int serve(self, unsigned int number) except -1
    cdef int serve_alone(self, unsigned int number) except -1
    cdef unsigned int port_in(self, unsigned int port, unsigned int size) except? 0xFFFFFFFE
    cdef int port_out(self, unsigned int port, unsigned int size, unsigned int value) except -1
    cdef int system_call(self, bint sysenter) except -1
