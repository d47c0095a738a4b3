cdef class DirtyLog:
    cdef readonly bint on
    cdef unsigned char[::1] clean
    cdef object logs
    # of each log, the frames of the host that it is about, and a byte for each of them
    cdef unsigned int[::1] first
    cdef unsigned int[::1] last
    cdef list written_pages

    cpdef int written(self, unsigned int frame) except -1
