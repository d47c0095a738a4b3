from vmm.core.code.flagkeeper cimport FlagKeeper
from vmm.core.code.lengths cimport LengthDecoder
from vmm.core.code.romcalls cimport RomCalls
from vmm.core.code.strings cimport string_kind
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadow cimport ShadowMmu

cdef class BlockTable:
    cdef CpuState cpu
    cdef GuestMemory memory
    cdef GuestPaging paging
    cdef ShadowMmu shadow
    cdef RomCalls rom
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

    cdef unsigned int first_slot(self, unsigned int address, unsigned int size) noexcept nogil
    cdef unsigned int slot_of(self, unsigned int address, unsigned int size, size_t place) noexcept nogil
    cdef unsigned int recognise(self, unsigned int address, unsigned int size, size_t place) except? 0xFFFFFFFF
    cdef unsigned int find(self, unsigned int address, unsigned int size, unsigned long long sign) except? 0xFFFFFFFF
    cdef unsigned int fetch(self, unsigned int address, unsigned int size) except? 0xFFFFFFFF
    cdef unsigned long long sign(self, Py_ssize_t offset, unsigned int end) except? 0
    cdef unsigned long long learn(self, unsigned int address, Py_ssize_t offset, unsigned int end) except? 0
    cdef int mark_return(self, unsigned int address) except -1
    cdef unsigned int behind(self, unsigned int slot, unsigned int eip) except? 0xFFFFFFFE
    cdef unsigned int last_length(self, unsigned int slot) except? 0xFFFFFFFE
