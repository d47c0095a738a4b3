from vmm.core.apic.lvt cimport LocalVectorTable

cdef class ApicTimer:
    cdef LocalVectorTable table
    cdef public object timers
    cdef object now
    cdef public bint is_on
    cdef public object key
    cdef public unsigned int divide
    cdef public unsigned int initial
    cdef public unsigned long long left
    cdef public unsigned long long started
    cdef public unsigned long long fired
    cdef public unsigned long long deadline
    cdef public unsigned long long due

    cdef int clear(self) except -1
    cdef int stop(self) except -1
    cdef unsigned long long step(self) noexcept
    cdef int start(self, unsigned int count) except -1
    cdef int set_divide(self, unsigned int value) except -1
    cdef unsigned int current_count(self) except? 0xFFFFFFFF
    cdef int catch_up(self) except -1
    cdef int arm(self) except -1
    cdef int set_deadline(self, unsigned long long value) except -1
