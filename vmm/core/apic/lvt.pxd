cdef class LocalVectorTable:
    cdef object accept
    cdef public unsigned int[::1] lvt
    cdef unsigned int[::1] writable
    cdef public unsigned int[::1] wires

    cdef int mask_all(self, bint clear) except -1
    cdef bint write(self, unsigned int number, unsigned int value, bint keep_masked) except? True
    cdef unsigned int timer_mode(self) except? 0xFFFFFFFF
    cdef bint is_masked(self, unsigned int number) except? True
    cdef bint passes_external(self) except? True
    cdef bint set_wire(self, unsigned int number, bint high) except? True
    cdef bint wire_changed(self, unsigned int number, bint rising) except? True
    cdef bint ended(self, unsigned int number, unsigned int vector) except? True
    cdef int fire(self, unsigned int number) except -1
