cdef class ApicVectors:
    cdef public unsigned int[::1] isr
    cdef public unsigned int[::1] irr
    cdef public unsigned int[::1] tmr
    cdef public unsigned int tpr

    cdef int clear(self) except -1
    cdef int top(self, unsigned int[::1] bits) except -2
    cdef unsigned int processor_priority(self) except? 0xFFFFFFFF
    cdef unsigned int arbitration_priority(self) except? 0xFFFFFFFF
    cdef int deliverable(self) except -2
    cdef int pend(self, unsigned int vector, bint level) except -1
    cdef bint serve(self, unsigned int vector) except? True
    cdef int end(self) except -2
    cdef bint is_level(self, unsigned int vector) except? True
