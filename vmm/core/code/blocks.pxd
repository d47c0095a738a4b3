from vmm.core.code.blocktable cimport BlockTable
from vmm.core.code.romcalls cimport RomCalls

cdef class BlockMeter:
    cdef public BlockTable table
    cdef public RomCalls rom
    cdef public long long[::1] hot
    cdef size_t hot_address
    cdef public unsigned long long ceiling
    cdef unsigned int new_size
    cdef size_t new_place
    cdef unsigned int left_slot
    cdef unsigned int left_rest
    cdef public unsigned int left_role
    cdef public bint left_entry
    cdef public bint unknown
    cdef public unsigned long long charged_ns
    cdef public unsigned long long elsewhere_ns

    cdef unsigned long long count(self) noexcept nogil
    cdef void arm(self, unsigned long long limit, unsigned long long deadline, bint look) noexcept nogil
    cdef unsigned int current_slot(self) noexcept nogil
    cdef unsigned long long take_back(self) noexcept nogil
    cdef unsigned int enter(self, unsigned int address, unsigned int size, size_t place) noexcept nogil
    cdef unsigned int enter_slot(self, unsigned int slot, unsigned int address) noexcept nogil
    cdef void enter_rom(self, unsigned long long facts) noexcept nogil
    cdef unsigned int kind(self) noexcept nogil
    cdef unsigned int role(self) except? 0xFFFFFFFE
    cdef int special(self, unsigned int address) except -1
    cdef unsigned int last_length(self) except? 0xFFFFFFFE
    cdef unsigned long long now_at(self, unsigned int eip) except? 0
    cpdef int leave_at(self, unsigned int eip) except -1
    cdef bint stay(self) except? True
    cdef int retire(self) except -1
    cdef void complete(self, unsigned int count) noexcept nogil
    cdef int pass_one(self) except -1
    cpdef unsigned long long now(self) except? 0
    cpdef unsigned long long own(self) except? 0
