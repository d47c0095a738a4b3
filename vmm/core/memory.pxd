from vmm.core.dirtylog cimport DirtyLog

cdef class GuestMemory:
    cdef unsigned char[::1] bytes
    cdef unsigned int[::1] words
    cdef readonly unsigned int size
    # page frames of the host's buffer, and of the guest's address space
    cdef readonly unsigned int host_count
    cdef readonly unsigned int frame_count
    cdef readonly object slots
    cdef readonly DirtyLog log
    # how often the slots were bisected
    cdef readonly unsigned long long lookups
    # of each slot, in order: its frames, the first of the host's, what they are
    cdef unsigned int[::1] first
    cdef unsigned int[::1] last
    cdef unsigned int[::1] origin
    cdef unsigned int[::1] kind
    cdef unsigned char[::1] overlay
    cdef unsigned int[::1] device_frames
    cdef unsigned int[::1] table

    cdef unsigned int look_up(self, unsigned int frame) noexcept nogil
    cdef bint has_device(self, unsigned int frame) noexcept nogil
    cpdef unsigned int entry(self, unsigned int frame) noexcept nogil
    cpdef bint is_ram(self, unsigned int frame) noexcept nogil
    cpdef bint is_protected(self, unsigned int frame) noexcept nogil
    cpdef bint is_device(self, unsigned int frame) noexcept nogil
    cdef bint contains(self, unsigned int address) noexcept nogil
    cpdef unsigned int host(self, unsigned int frame) noexcept nogil
    cpdef unsigned int read8(self, unsigned int address) except? 0xFFFFFFFF
    cpdef unsigned int read32(self, unsigned int address) except? 0xFFFFFFFF
    cpdef unsigned long long read64(self, unsigned int address) except? 0xFFFFFFFF
    cpdef int write32(self, unsigned int address, unsigned int value) except -1
    cpdef int write8(self, unsigned int address, unsigned int value) except -1
    cdef unsigned int host32(self, unsigned int address) except? 0xFFFFFFFF
    cdef unsigned long long host64(self, unsigned int address) except? 0xFFFFFFFF
