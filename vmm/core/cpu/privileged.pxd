from vmm.core.code.blocks cimport BlockMeter
from vmm.core.code.fetch cimport InstructionBytes
from vmm.core.counters cimport Counters
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.cpu.delivery cimport Delivery
from vmm.core.localapic cimport LocalApic
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadow cimport ShadowMmu
from vmm.core.paravirt.batch cimport BatchQueue

cdef class PrivilegedRegisters:
    cdef CpuState cpu
    cdef GuestPaging paging
    cdef ShadowMmu shadow
    cdef BatchQueue queue
    cdef Counters counters
    cdef BlockMeter meter
    cdef Delivery delivery
    cdef InstructionBytes code
    cdef public object cpuid
    cdef readonly object msrs
    cdef public LocalApic apic
    cdef unsigned int[::1] dr

    cdef int control_register(self, unsigned int eip, bint write) except -1
    cdef int machine_status_word(self, unsigned int eip, unsigned int at, bint write) except -1
    cdef bint set_cr0(self, unsigned int value) except? True
    cdef bint set_cr4(self, unsigned int value) except? True
    cdef int debug_register(self, unsigned int eip, bint write) except -1
    cdef int identify(self, unsigned int eip) except -1
    cdef int time_stamp(self, unsigned int eip) except -1
    cdef int skip(self, unsigned int eip) except -1
    cdef int model_specific_register(self, unsigned int eip) except -1
    cdef int apic_register(self, unsigned int eip, object number, bint write) except -1
    cdef bint set_extended_features(self) except? True
    cdef int set_pair(self, unsigned long long value) except -1
