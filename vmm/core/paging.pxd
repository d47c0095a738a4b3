from vmm.core.memory cimport GuestMemory

cdef class GuestPaging:
    cdef GuestMemory memory
    cdef public unsigned int cr0
    cdef public unsigned int cr3
    cdef public unsigned int cr4
    cdef unsigned int pde
    cdef unsigned int pte
    cdef unsigned int pde_address
    cdef unsigned int pte_address
    cdef unsigned int physical
    cdef bint large
    cdef bint user
    cdef bint writable
    cdef unsigned int error

    cdef bint enabled(self) noexcept
    cdef bint write_protect(self) noexcept
    cdef bint walk(self, unsigned int address) except? True
    cdef int mark(self, bint write) except -1
    cpdef Py_ssize_t translate(self, unsigned int address, bint write, bint user) except? -2
