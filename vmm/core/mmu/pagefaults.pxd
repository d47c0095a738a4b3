from vmm.core.code.blocks cimport BlockMeter
from vmm.core.code.deviceaccess cimport DeviceAccess
from vmm.core.code.stores cimport StoreEmulator
from vmm.core.counters cimport Counters
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.cpu.delivery cimport Delivery
from vmm.core.mmu.devicememory cimport DeviceMemory
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadow cimport ShadowMmu
from vmm.core.paravirt.batch cimport BatchQueue

cdef class PageFaults:
    cdef CpuState cpu
    cdef GuestPaging paging
    cdef ShadowMmu shadow
    cdef BatchQueue queue
    cdef Counters counters
    cdef BlockMeter meter
    cdef Delivery delivery
    cdef StoreEmulator stores
    cdef DeviceAccess access
    cdef DeviceMemory devices
    cdef public bint fault_mask
    cdef public bint lets_stray
    cdef bint filled
    cdef public unsigned long long given_up
    cdef public unsigned int given_up_frame

    cdef int page_fault(self, unsigned int eip) except -1
    cdef int table_write(self, unsigned int eip) except -1
    cdef int device_access(self, unsigned int eip, unsigned int address) except -1
    cdef int count_device_access(self, unsigned int physical, unsigned int eip) except -1
