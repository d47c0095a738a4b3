cdef class Windows:
    cdef public unsigned int[::1] frame_of
    cdef public unsigned int used
    cdef readonly unsigned int address

    cdef bint full(self) noexcept
    cdef unsigned int find(self, unsigned int frame) except? 0
    cdef int forget(self) except -1
    cpdef unsigned int target(self, unsigned int window) except? 0xFFFFFFFF
