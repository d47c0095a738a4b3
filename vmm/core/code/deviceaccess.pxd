from vmm.core.code.fetch cimport InstructionBytes
from vmm.core.code.stores cimport StoreEmulator
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.mmu.devicememory cimport DeviceMemory

cdef class DeviceAccess:
    cdef CpuState cpu
    cdef InstructionBytes code
    cdef StoreEmulator stores
    cdef DeviceMemory devices

    cdef bint load(self, unsigned int eip, unsigned int physical) except? True
    cdef bint store(self, unsigned int eip, unsigned int physical) except? True
    cdef bint load_form(self, unsigned int eip, unsigned int physical) except? True
    cdef bint extend(self, unsigned int eip, unsigned int at) except? True
