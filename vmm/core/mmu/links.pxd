cdef class Links:
    cdef readonly unsigned int[::1] location
    cdef readonly unsigned int[::1] follower
    cdef unsigned int free
    cdef unsigned int top
    cdef unsigned int size
    cdef unsigned int available

    cpdef bint nearly_full(self) noexcept
    cpdef int add(self, unsigned int[::1] heads, unsigned int head, unsigned int location) except -1
    cpdef int remove(self, unsigned int[::1] heads, unsigned int head, unsigned int location) except -1
    cpdef int clear(self) except -1
