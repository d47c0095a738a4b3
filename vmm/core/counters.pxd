from vmm.core.native cimport barrier
from vmm.core.recorder cimport Recorder

cdef class Counters:
    cdef public Recorder recorder
    cdef public unsigned long long[::1] events
    cdef public unsigned long long[::1] heavy
    cdef public unsigned int[::1] place_event
    cdef public unsigned int[::1] place_qualifier
    cdef public unsigned int[::1] place_eip
    cdef public unsigned long long[::1] place_count
    cdef public unsigned int[::1] recent_event
    cdef public unsigned int[::1] recent_qualifier
    cdef public unsigned int[::1] recent_eip
    cdef unsigned long long[::1] record
    cdef bint is_heavy
    cdef public unsigned long long seen
    cdef public unsigned int used
    cdef public unsigned long long elsewhere

    cpdef int count(self, unsigned int event, unsigned int qualifier, unsigned int eip) except -1
    cpdef int count_heavy(self, unsigned int event, unsigned int qualifier, unsigned int eip) except -1
    cpdef int begin(self) except -1
    cpdef int end(self) except -1
    cdef int tell(self, unsigned int event, unsigned int qualifier, unsigned int eip) except -1
