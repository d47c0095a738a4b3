from vmm.core.mmu.codepages cimport CodePages
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.mmu.links cimport Links
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.windows cimport Windows

cdef class ShadowPages:
    cdef readonly GuestMemory memory
    cdef object cpus
    cdef public CodePages code
    cdef public CpuState cpu
    cdef readonly unsigned int roots_each
    cdef public unsigned long long generation
    # how the guest's tables are read, as GuestPaging.mode() says it
    cdef public unsigned int mode
    cdef public Windows windows
    cdef public unsigned long long[::1] entries
    cdef readonly unsigned int pool_address
    cdef readonly unsigned int page_count
    cdef public unsigned int[::1] free_pages
    cdef public unsigned int free_count
    # what each shadow page is: its kind, the guest frame it shadows, which part of it
    cdef public unsigned int[::1] kind
    cdef public unsigned int[::1] frame_of
    cdef public unsigned int[::1] part_of
    cdef public unsigned int[::1] parents
    # where a guest frame is shadowed, and where it is mapped
    cdef public unsigned int[::1] table_of
    cdef public unsigned int[::1] directory_of
    cdef public unsigned int[::1] direct_of
    cdef public unsigned int[::1] identity
    cdef public unsigned char[::1] announced
    cdef public unsigned char[::1] out_of_step
    cdef public unsigned int[::1] strays
    cdef public unsigned int stray_count
    # entries that give ring 3 less than the guest's do
    cdef public unsigned int withheld
    cdef public unsigned int[::1] withheld_at
    cdef public unsigned int withheld_next
    cdef public unsigned int[::1] mappings
    cdef public Links links
    cdef public unsigned char[::1] translated
    # how many mappings of a frame code was fetched through
    cdef public unsigned int[::1] fetched
    # stores to what was code once that the engine may not have seen
    cdef public unsigned char[::1] unseen
    cdef public bint tlb_stale
    cdef unsigned int[::1] stale
    cdef public unsigned int stale_count
    cdef public bint links_stale

    cdef bint running_out(self) noexcept
    cpdef int clear(self) except -1
    cdef bint wide(self) noexcept
    cdef int flush_if_stale(self) except -1
    cdef bint flush_leaves(self) except -1
    cdef int lost_link(self, unsigned int location) except -1
    cdef int lost(self, unsigned int location) except -1
    cdef int settle(self) except -1
    cpdef int switch_to(self, CpuState cpu) except -1
    cdef int flush_page(self, unsigned int address) except -1
    cdef bint is_traced(self, unsigned int frame) noexcept
    cdef int make_read_only(self, unsigned int frame) except -1
    cdef int trace(self, unsigned int frame) except -1
    cdef unsigned long long data_bits(self, unsigned int frame) except? 0
    cdef int count_fetched(self, unsigned int frame, unsigned long long old, unsigned long long new) except -1
    cdef int lend(self, unsigned int frame, unsigned long long which) except -1
    cdef unsigned int page_index(self, unsigned long long entry) noexcept
    cdef unsigned long long link_to(self, unsigned int page) noexcept
    cdef unsigned long long leaf(self, unsigned int guest, unsigned int known, bint user, bint writable, bint execute) except? 0
    cdef int store_leaf(self, unsigned int location, unsigned long long entry) except -1
    cdef int drop_leaf(self, unsigned int location) except -1
    cdef unsigned long long mark(self, unsigned long long guest, unsigned long long entry) noexcept
    cdef int count_withheld(self, unsigned int location, unsigned long long old, unsigned long long new) except -1
    cdef int drop_withheld(self) except -1
    cdef int store_link(self, unsigned int location, unsigned long long entry) except -1
    cdef int drop_link(self, unsigned int location) except -1
    cdef unsigned int allocate(self, unsigned int kind, unsigned int frame, unsigned int part) except? 0
    cdef int free(self, unsigned int page) except -1
    cdef unsigned int table(self, unsigned int frame, unsigned int half) except? 0
    cdef unsigned int directory(self, unsigned int frame, unsigned int quarter) except? 0
    cdef unsigned int identity_directory(self, unsigned int quarter) except? 0
    cdef unsigned int direct(self, unsigned int region) except? 0
    cdef int unshadow(self, unsigned int frame) except -1
    cdef int close_windows(self) except -1
