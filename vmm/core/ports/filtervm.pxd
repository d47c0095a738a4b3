cdef class FilterMachine:
    cdef unsigned int length
    cdef unsigned char[::1] opcode
    cdef unsigned char[::1] dst
    cdef unsigned char[::1] src
    cdef short[::1] offset
    cdef unsigned long long[::1] imm
    cdef public unsigned char[::1] memory
    cdef readonly object state
    cdef unsigned long long[::1] registers
    cdef unsigned long long[::1] saved
    cdef unsigned int[::1] return_to
    cdef readonly unsigned int answer

    cpdef bint run(self, unsigned int port, unsigned int size, unsigned long long now) except? 1
    cpdef unsigned long long execute(self) except? 0xFFFFFFFFFFFFFFFE
    cpdef unsigned long long load(self, unsigned long long address, unsigned int width) except? 0xFFFFFFFFFFFFFFFE
    cpdef int store(self, unsigned long long address, unsigned int width, unsigned long long value) except -1
    cdef size_t place(self, unsigned long long address, unsigned int width) except? 0xFFFFFFFFFFFFFFF
    cdef unsigned int target(self, unsigned int pc, bint far) except? 0xFFFFFFFE
    cdef int arithmetic(self, unsigned int pc, unsigned int opcode, unsigned int dst, unsigned int src) except -1
    cdef int atomic(self, unsigned int operation, unsigned long long address, unsigned int width, unsigned int src) except -1
