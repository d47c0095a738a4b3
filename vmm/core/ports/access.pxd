from vmm.core.code.blocks cimport BlockMeter
from vmm.core.counters cimport Counters
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.cpu.delivery cimport Delivery
from vmm.core.paravirt.doorbell cimport DoorbellPort
from vmm.core.ports.filters cimport PortFilters
from vmm.core.ports.reflector cimport Reflector
from vmm.core.ports.right cimport PortRight

cdef class PortAccess:
    cdef CpuState cpu
    cdef Counters counters
    cdef BlockMeter meter
    cdef Delivery delivery
    cdef DoorbellPort doorbell
    cdef PortRight right
    cdef readonly Reflector reflector
    cdef object bus
    cdef public PortFilters filters
    cdef public bint has_doorbell
    cdef unsigned long long step_at
    cdef readonly bint stepping
    # the run stopped before a block that accesses a port
    cdef public bint met

    cdef unsigned int read(self, unsigned int port, unsigned int size) except? 0xFFFFFFFE
    cdef bint write(self, unsigned int port, unsigned int size, unsigned int value) except? True
    cdef bint stopped(self, unsigned int eip) except? True
    cdef int check_right(self, unsigned int port, unsigned int size, unsigned int eip) except -1
    cdef bint needs_step(self, unsigned int address) except? True
    cpdef int begin_step(self) except -1
    cpdef int end_step(self) except -1
