from vmm.core.code.fetch cimport InstructionBytes
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.paging cimport GuestPaging

cdef class PortRight:
    cdef CpuState cpu
    cdef GuestMemory memory
    cdef GuestPaging paging
    cdef InstructionBytes code

    cdef bint is_privileged(self) except? True
    cdef bint may_access(self, unsigned int port, unsigned int size) except? True
    cdef unsigned int byte(self, unsigned int offset) except? 0xFFFFFFFF
    cdef bint refuses(self, unsigned int eip) except? True
