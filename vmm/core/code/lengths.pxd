cdef class LengthDecoder:
    cdef unsigned char[::1] code
    cdef unsigned char[::1] one
    cdef unsigned char[::1] two

    cpdef unsigned int length(self, unsigned int at, unsigned int end, bint wide) except? 0
    cdef bint accesses_port(self, unsigned int at, unsigned int end) except? True
    cdef unsigned int operand(self, unsigned int at, unsigned int end, bint small_address) except? 0
