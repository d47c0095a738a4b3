from vmm.core.code.fetch cimport InstructionBytes
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.devicememory cimport DeviceMemory
from vmm.core.mmu.paging cimport GuestPaging

cdef class StoreEmulator:
    cdef CpuState cpu
    cdef GuestMemory memory
    cdef GuestPaging paging
    cdef InstructionBytes code
    cdef unsigned int physical
    cdef unsigned int size
    cdef DeviceMemory device
    cdef readonly unsigned int touched

    cdef bint emulate(self, unsigned int eip, unsigned int physical) except? True
    cdef bint emulate_string(self, unsigned int eip, unsigned int physical) except? True
    cdef bint two_byte(self, unsigned int eip, unsigned int at) except? True
    cdef bint is_rest(self, unsigned int address) except? True
    cdef unsigned int load(self) except? 0xFFFFFFFF
    cdef int store(self, unsigned int value) except -1
    cdef unsigned int register_value(self, unsigned int number) except? 0xFFFFFFFF
    cdef int set_register(self, unsigned int number, unsigned int value) except -1
    cdef unsigned int mask(self) except? 0xFFFFFFFF
    cdef int arithmetic(self, unsigned int operation, unsigned int operand) except -1
    cdef int set_result_flags(self, unsigned int result, unsigned int carry, unsigned int adjust, unsigned int overflow) except -1
    cdef int set_difference_flags(self, unsigned int left, unsigned int right) except -1
    cdef int finish(self, unsigned int eip) except -1
