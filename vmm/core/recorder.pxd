from vmm.core.code.blocks cimport BlockMeter
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.native cimport host_ns
from vmm.core.paravirt.batch cimport BatchQueue

cdef class Recorder:
    cdef CpuState cpu
    cdef BlockMeter meter
    cdef BatchQueue queue
    cdef object on_full
    cdef bint timing
    cdef unsigned int used
    cdef bint inside
    cdef bint pending
    cdef bint heavy
    cdef unsigned long long host
    cdef unsigned long long charged
    cdef unsigned long long notices
    cdef unsigned int event
    cdef unsigned int qualifier
    cdef unsigned int eip
    cdef unsigned int address
    cdef unsigned int depth
    cdef unsigned long long when
    cdef unsigned long long[::1] row_when
    cdef unsigned int[::1] row_charged
    cdef unsigned int[::1] row_host
    cdef unsigned int[::1] row_event
    cdef unsigned int[::1] row_heavy
    cdef unsigned int[::1] row_qualifier
    cdef unsigned int[::1] row_eip
    cdef unsigned int[::1] row_address
    cdef unsigned int[::1] row_depth
    cdef unsigned int[::1] row_drained

    cdef int begin(self) except -1
    cdef int note_heavy(self) except -1
    cdef int note(self, unsigned int event, unsigned int qualifier, unsigned int eip) except -1
    cdef int end(self) except -1
    cdef int write(self) except -1
