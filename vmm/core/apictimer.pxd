from vmm.core.apiclvt cimport LocalVectorTable

cdef class ApicTimer:
    cdef LocalVectorTable table
    cdef object timers
    cdef object now
    cdef bint is_on
    cdef object key
    cdef unsigned int divide
    cdef unsigned int initial
    cdef unsigned long long left
    cdef unsigned long long started
    cdef unsigned long long fired
    cdef unsigned long long deadline
    cdef unsigned long long due

    cdef int clear(self) except -1
    cdef int stop(self) except -1
    cdef unsigned long long step(self) noexcept
    cdef int start(self, unsigned int count) except -1
    cdef int set_divide(self, unsigned int value) except -1
    cdef unsigned int current_count(self) except? 0xFFFFFFFF
    cdef int catch_up(self) except -1
    cdef int arm(self) except -1
    cdef int set_deadline(self, unsigned long long value) except -1
