from vmm.core.memory cimport GuestMemory

cdef class GuestPaging:
    cdef GuestMemory memory
    cdef public unsigned int cr0
    cdef public unsigned int cr3
    cdef public unsigned int cr4
    cdef public bint no_execute
    cdef public unsigned long long[::1] pointers
    cdef public unsigned long long pde
    cdef public unsigned long long pte
    cdef public unsigned int pde_address
    cdef public unsigned int pte_address
    cdef public unsigned int physical
    cdef public bint large
    cdef public bint user
    cdef public bint writable
    cdef public bint executable
    cdef public bint marked
    cdef public unsigned int error

    cdef bint enabled(self) noexcept
    cdef bint write_protect(self) noexcept
    cdef bint pae(self) noexcept
    cdef unsigned int mode(self) noexcept
    cpdef int load_pointers(self) except -1
    cdef unsigned long long pointer(self, unsigned int quarter) except? 0
    cdef bint walk(self, unsigned int address) except? True
    cdef bint walk_pae(self, unsigned int address) except? True
    cdef unsigned int reached(self, unsigned long long entry, unsigned int offset_mask, unsigned int address) except? 0xFFFFFFFF
    cdef int mark(self, bint write) except -1
    cpdef Py_ssize_t translate(self, unsigned int address, bint write, bint user) except? -2
