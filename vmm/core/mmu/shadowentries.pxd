from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.codepages cimport CodePages
from vmm.core.mmu.links cimport Links

cdef class ShadowEntries:
    cdef readonly GuestMemory memory
    cdef object cpus
    cdef public CpuState cpu
    # how the guest's tables are read, as GuestPaging.mode() says it
    cdef public unsigned int mode
    cdef public unsigned long long[::1] entries
    cdef readonly unsigned int pool_address
    cdef readonly unsigned int page_count
    # what kind of shadow page each one is, and what links to it
    cdef public unsigned int[::1] kind
    cdef public unsigned int[::1] parents
    # where a frame is mapped
    cdef public unsigned int[::1] mappings
    cdef public Links links
    # entries that give ring 3 less than the guest's do
    cdef public unsigned int withheld
    cdef public unsigned int[::1] withheld_at
    cdef public unsigned int withheld_next
    cdef public CodePages code
    cdef public unsigned char[::1] translated
    # how many mappings of a frame code was fetched through
    cdef public unsigned int[::1] fetched
    # stores to what was code once that the engine may not have seen
    cdef public unsigned char[::1] unseen
    cdef public bint tlb_stale
    cdef unsigned int[::1] stale
    cdef public unsigned int stale_count
    cdef public bint links_stale

    cdef int flush_if_stale(self) except -1
    cdef bint flush_leaves(self) except -1
    cdef int lost_link(self, unsigned int location) except -1
    cdef int lost(self, unsigned int location) except -1
    cdef int settle(self) except -1
    cpdef int switch_to(self, CpuState cpu) except -1
    cdef int flush_page(self, unsigned int address) except -1
    cdef unsigned long long data_bits(self, unsigned int frame) except? 0
    cdef int count_fetched(self, unsigned int frame, unsigned long long old, unsigned long long new) except -1
    cdef int lend(self, unsigned int frame, unsigned long long which) except -1
    cdef unsigned int page_index(self, unsigned long long entry) noexcept
    cdef unsigned long long link_to(self, unsigned int page) noexcept
    cdef int store_leaf(self, unsigned int location, unsigned long long entry) except -1
    cdef int drop_leaf(self, unsigned int location) except -1
    cdef unsigned long long mark(self, unsigned long long guest, unsigned long long entry) noexcept
    cdef int count_withheld(self, unsigned int location, unsigned long long old, unsigned long long new) except -1
    cdef int drop_withheld(self) except -1
    cdef int store_link(self, unsigned int location, unsigned long long entry) except -1
    cdef int drop_link(self, unsigned int location) except -1
