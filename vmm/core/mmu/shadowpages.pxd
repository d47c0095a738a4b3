from vmm.core.mmu.shadowentries cimport ShadowEntries
from vmm.core.mmu.windows cimport Windows

cdef class ShadowPages(ShadowEntries):
    cdef readonly unsigned int roots_each
    cdef public unsigned long long generation
    cdef public Windows windows
    cdef public unsigned int[::1] free_pages
    cdef public unsigned int free_count
    # which guest frame each shadow page shadows, and which part of it
    cdef public unsigned int[::1] frame_of
    cdef public unsigned int[::1] part_of
    # where a guest frame is shadowed
    cdef public unsigned int[::1] table_of
    cdef public unsigned int[::1] directory_of
    cdef public unsigned int[::1] direct_of
    cdef public unsigned int[::1] identity
    cdef public unsigned char[::1] announced
    cdef public unsigned char[::1] out_of_step
    cdef public unsigned int[::1] strays
    cdef public unsigned int stray_count

    cdef bint running_out(self) noexcept
    cpdef int clear(self) except -1
    cdef bint wide(self) noexcept
    cdef bint is_traced(self, unsigned int frame) noexcept
    cdef int make_read_only(self, unsigned int frame) except -1
    cdef int trace(self, unsigned int frame) except -1
    cdef unsigned long long leaf(self, unsigned int guest, unsigned int known, bint user, bint writable, bint execute) except? 0
    cdef int make_executable(self, unsigned int location, unsigned int frame) except -1
    cdef unsigned int allocate(self, unsigned int kind, unsigned int frame, unsigned int part) except? 0
    cdef int free(self, unsigned int page) except -1
    cdef unsigned int table(self, unsigned int frame, unsigned int half) except? 0
    cdef unsigned int directory(self, unsigned int frame, unsigned int quarter) except? 0
    cdef unsigned int identity_directory(self, unsigned int quarter) except? 0
    cdef unsigned int direct(self, unsigned int region) except? 0
    cdef int unshadow(self, unsigned int frame) except -1
    cdef int close_windows(self) except -1
