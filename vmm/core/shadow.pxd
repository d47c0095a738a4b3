from vmm.core.cpustate cimport CpuState
from vmm.core.links cimport Links
from vmm.core.memory cimport GuestMemory
from vmm.core.paging cimport GuestPaging

cdef class ShadowMmu:
    cdef GuestMemory memory
    cdef GuestPaging paging
    cdef CpuState cpu
    cdef unsigned long long[::1] entries
    cdef unsigned int pool_address
    cdef unsigned int page_count
    cdef unsigned int[::1] free_pages
    cdef unsigned int free_count
    # what each shadow page is: kind, the guest frame it shadows, which half of it
    cdef unsigned int[::1] kind
    cdef unsigned int[::1] frame_of
    cdef unsigned int[::1] half_of
    cdef unsigned int[::1] parents
    # where a guest frame is shadowed, and where it is mapped
    cdef unsigned int[::1] table_of
    cdef unsigned int[::1] direct_of
    cdef unsigned int[::1] root_of
    cdef unsigned char[::1] announced
    cdef unsigned int[::1] mappings
    cdef Links links
    # roots
    cdef unsigned int[::1] root_key
    cdef unsigned char[::1] root_used
    cdef unsigned int[::1] root_pages
    cdef unsigned long long[::1] root_stamp
    cdef unsigned int current
    cdef unsigned long long stamp
    cdef unsigned int void_page
    cdef unsigned int window_address
    cdef unsigned int[::1] window_frame
    cdef unsigned int window_used
    cdef bint tlb_stale
    cdef unsigned int stuck
    # the outcome of the latest resolve()
    cdef public unsigned int guest_error
    cdef public unsigned int target
    cdef readonly unsigned long long resets

    cpdef int load_root(self) except -1
    cpdef int reset(self) except -1
    cdef int flush_if_stale(self) except -1
    cdef bint is_traced(self, unsigned int frame) noexcept
    cdef bint is_live_directory(self, unsigned int frame) noexcept
    cdef int resolve(self, unsigned int address, unsigned int error) except -1
    cdef bint lets_fault_through(self, unsigned int address) except? True
    cdef int entry_written(self, unsigned int address) except -1
    cdef int announce(self, unsigned int frame) except -1
    cdef int release(self, unsigned int frame) except -1
    cdef int unshadow(self, unsigned int frame) except -1
    cdef int protection_changed(self, unsigned int frame) except -1
    cdef unsigned int page_index(self, unsigned long long entry) noexcept
    cdef int drop_leaf(self, unsigned int location) except -1
    cdef int drop_link(self, unsigned int location) except -1
    cdef int store_leaf(self, unsigned int location, unsigned long long entry) except -1
    cdef int store_link(self, unsigned int location, unsigned long long entry, unsigned int page) except -1
    cdef int free_page(self, unsigned int page) except -1
    cdef int free_root(self, unsigned int root) except -1
    cdef unsigned int allocate(self, unsigned int kind, unsigned int frame, unsigned int half) except? 0
    cdef int trace(self, unsigned int frame) except -1
    cdef int empty_current_root(self) except -1
    cdef unsigned int table_page(self, unsigned int frame, unsigned int half) except? 0
    cdef unsigned int direct_page(self, unsigned int large_frame, unsigned int half) except? 0
    cdef unsigned long long leaf(self, unsigned int frame, bint user, bint writable, bint execute) except? 0
    cdef unsigned int window(self, unsigned int frame) except? 0
    cpdef unsigned int window_target(self, unsigned int window) except? 0xFFFFFFFF
