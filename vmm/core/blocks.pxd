from vmm.core.cpustate cimport CpuState
from vmm.core.flagkeeper cimport FlagKeeper
from vmm.core.lengths cimport LengthDecoder
from vmm.core.memory cimport GuestMemory
from vmm.core.paging cimport GuestPaging
from vmm.core.shadow cimport ShadowMmu
from vmm.core.strings cimport string_kind

cdef class BlockMeter:
    cdef CpuState cpu
    cdef GuestMemory memory
    cdef GuestPaging paging
    cdef ShadowMmu shadow
    cdef unsigned char[::1] code
    cdef LengthDecoder decoder
    cdef readonly FlagKeeper keeper
    cdef public unsigned long long[::1] blocks
    cdef public unsigned long long[::1] signs
    cdef unsigned long long[::1] places
    cdef public unsigned short[::1] offsets
    cdef public unsigned int used
    cdef public unsigned int most
    cdef public unsigned int offsets_used
    cdef public long long[::1] hot
    cdef size_t hot_address
    cdef public unsigned long long ceiling
    cdef unsigned int new_size
    cdef size_t new_place
    cdef unsigned int left_slot
    cdef unsigned int left_rest
    cdef public unsigned int left_role
    cdef public bint left_entry
    cdef public bint counted_call
    cdef public unsigned int call_slot
    cdef public unsigned long long call_began
    cdef public bint unknown
    cdef public unsigned int watched
    cdef public unsigned int asked
    cdef public unsigned int rom_start
    cdef public unsigned int rom_end
    cdef public unsigned int in_call
    cdef public unsigned long long charged_ns
    cdef public unsigned long long elsewhere_ns
    cdef public unsigned long long booked
    cdef public unsigned long long[::1] call_count
    cdef public unsigned long long[::1] call_instructions
    cdef public object answers
    cdef public set returns

    cdef unsigned long long count(self) noexcept nogil
    cdef void arm(self, unsigned long long limit, unsigned long long deadline, bint look) noexcept nogil
    cdef unsigned int current_slot(self) noexcept nogil
    cdef unsigned long long take_back(self) noexcept nogil
    cdef unsigned int enter(self, unsigned int address, unsigned int size, size_t place) noexcept nogil
    cdef unsigned int first_slot(self, unsigned int address, unsigned int size) noexcept nogil
    cdef unsigned int enter_slot(self, unsigned int slot, unsigned int address) noexcept nogil
    cdef void book(self) noexcept nogil
    cdef void enter_rom(self, unsigned long long facts) noexcept nogil
    cdef unsigned int kind(self) noexcept nogil
    cdef unsigned int role(self) except? 0xFFFFFFFE
    cdef unsigned int fetch(self, unsigned int address, unsigned int size) except? 0xFFFFFFFF
    cdef int special(self, unsigned int address) except -1
    cdef Py_ssize_t rom_offset(self, unsigned int address) except? -1
    cdef unsigned long long sign(self, unsigned int address, unsigned int end) except? 0
    cdef unsigned int find(self, unsigned int address, unsigned int size, unsigned long long sign) except? 0xFFFFFFFF
    cdef int learn(self, unsigned int slot, unsigned int address, unsigned int end) except -1
    cdef unsigned int last_length(self) except? 0xFFFFFFFE
    cdef unsigned long long now_at(self, unsigned int eip) except? 0
    cdef unsigned int behind(self, unsigned int eip) except? 0xFFFFFFFE
    cpdef int leave_at(self, unsigned int eip) except -1
    cdef bint stay(self) except? True
    cdef int retire(self) except -1
    cdef int pass_one(self) except -1
    cdef bint is_rom(self, unsigned int address) except? True
    cpdef unsigned long long now(self) except? 0
    cpdef unsigned long long own(self) except? 0
