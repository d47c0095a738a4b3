from vmm.core.counters cimport Counters
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.localapic cimport LocalApic
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadow cimport ShadowMmu
from vmm.core.paravirt.batch cimport BatchQueue
from vmm.core.ports.reflector cimport Reflector

cdef class DoorbellPort:
    cdef CpuState cpu
    cdef GuestMemory memory
    cdef GuestPaging paging
    cdef ShadowMmu shadow
    cdef BatchQueue queue
    cdef Counters counters
    cdef public object clock
    cdef readonly object start_ap
    cdef readonly tuple channels
    cdef public Reflector reflector
    cdef LocalApic apic
    cdef public object complaints

    cdef unsigned int register(self, unsigned int function, unsigned int offset, unsigned int value) except? 0xFFFFFFFF
    cdef unsigned int ring(self, unsigned int function, unsigned int argument, unsigned int eip) except? 0xFFFFFFFF
