from vmm.core.code.blocks cimport BlockMeter
from vmm.core.code.fetch cimport InstructionBytes
from vmm.core.counters cimport Counters
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadow cimport ShadowMmu

cdef class Reflector:
    cdef CpuState cpu
    cdef GuestMemory memory
    cdef GuestPaging paging
    cdef ShadowMmu shadow
    cdef Counters counters
    cdef BlockMeter meter
    cdef InstructionBytes code
    cdef readonly bint on
    # where the ROM's image is, virtual and physical, and its table
    cdef unsigned int image
    cdef unsigned int image_physical
    cdef unsigned int[::1] offsets
    cdef unsigned char[::1] by_port
    cdef readonly set sites
    cdef public object break_at
    cdef unsigned int[::1] places
    # of the latest decoded instruction
    cdef unsigned int access
    cdef unsigned int port
    cdef unsigned int size
    cdef unsigned int length
    cdef bint by_register
    cdef readonly unsigned int patched

    cdef bint wants(self, unsigned int port) noexcept
    cdef int learn(self, unsigned int eip) except -1
    cdef int drop(self, unsigned int linear) except -1
    cdef int renew(self, unsigned int linear) except -1
    cdef bint decode(self) except? True
    cdef bint is_plain(self) except? True
    cdef bint reflect(self, unsigned int eip) except? True
    cdef unsigned int qualifier(self) noexcept
    cdef bint has_rom(self, unsigned int offset) except? True
    cdef bint patch(self, unsigned int eip) except? True
    cdef bint is_ordinary(self, unsigned int physical) except? True
    cdef bint has_buffer(self) except? True
