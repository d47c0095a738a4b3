cdef class CodePages:
    cdef unsigned int frames
    cdef unsigned char[::1] state
    cdef unsigned char[::1] changes
    cdef readonly object mixed
    cdef readonly unsigned long long stores
    cdef readonly object stale

    cdef bint is_code(self, unsigned int frame) noexcept
    cdef bint is_mixed(self, unsigned int frame) noexcept
    cdef bint is_watched(self, unsigned int frame) noexcept
