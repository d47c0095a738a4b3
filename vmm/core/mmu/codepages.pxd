cdef class CodePages:
    cdef unsigned int frames
    cdef public unsigned char[::1] state
    cdef public unsigned char[::1] changes
    cdef public object mixed
    cdef public unsigned long long stores
    cdef public object stale

    cdef bint is_code(self, unsigned int frame) noexcept
    cdef bint is_mixed(self, unsigned int frame) noexcept
    cdef bint is_watched(self, unsigned int frame) noexcept
