cdef class GuestMemory:
    cdef unsigned char[::1] bytes
    cdef unsigned int[::1] words
    cdef unsigned char[::1] frames
    cdef readonly unsigned int size
    cdef readonly unsigned int frame_count

    cdef bint is_ram(self, unsigned int frame) noexcept nogil
    cdef bint is_protected(self, unsigned int frame) noexcept
    cdef bint contains(self, unsigned int address) noexcept
    cpdef unsigned int read8(self, unsigned int address) except? 0xFFFFFFFF
    cpdef unsigned int read32(self, unsigned int address) except? 0xFFFFFFFF
    cpdef unsigned long long read64(self, unsigned int address) except? 0xFFFFFFFF
    cpdef int write32(self, unsigned int address, unsigned int value) except -1
    cpdef int write8(self, unsigned int address, unsigned int value) except -1
