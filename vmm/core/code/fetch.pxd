from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.mmu.shadow cimport ShadowMmu

cdef class InstructionBytes:
    cdef CpuState cpu
    cdef ShadowMmu shadow
    cdef unsigned char[::1] bytes

    cdef int load(self, unsigned int eip) except -1
    cdef unsigned int load_part(self, unsigned int address, unsigned int done) except? 0xFFFFFFFF
    cdef unsigned int skip_prefixes(self) except? 0xFFFFFFFF
    cdef unsigned int byte(self, unsigned int index) except? 0xFFFFFFFF
    cdef unsigned int word(self, unsigned int index) except? 0xFFFFFFFF
    cdef unsigned int dword(self, unsigned int index) except? 0xFFFFFFFF
    cdef unsigned int operand_length(self, unsigned int index) except? 0xFFFFFFFF
    cdef unsigned int effective_address(self, unsigned int index) except? 0xFFFFFFFF
