from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.shadow cimport ShadowMmu
from vmm.core.mmu.shadowpages cimport ShadowPages

cpdef unsigned int string_kind(unsigned int prefix, unsigned int opcode) noexcept nogil

cdef class StringSweep:
    cdef CpuState cpu
    cdef GuestMemory memory
    cdef ShadowMmu shadow
    cdef ShadowPages pages
    cdef bint others

    cdef unsigned int sweep(self, unsigned int address, unsigned int kind, unsigned long long room) noexcept nogil
    cdef bint is_still(self, unsigned int address, unsigned int kind, bint user) noexcept nogil
    cdef long long physical(self, unsigned int address, bint write, bint user) noexcept nogil
    cdef bint move(self, unsigned int source, unsigned int target, unsigned int count, unsigned int shift) noexcept nogil
    cdef bint store(self, unsigned int target, unsigned int value, unsigned int count, unsigned int shift) noexcept nogil
