from vmm.core.apic.lvt cimport LocalVectorTable
from vmm.core.apic.timer cimport ApicTimer
from vmm.core.apic.vectors cimport ApicVectors
from vmm.core.memory cimport GuestMemory

cdef class ApicInterrupts:
    cdef public ApicVectors vectors
    cdef public LocalVectorTable table
    cdef public ApicTimer timer
    cdef GuestMemory memory
    cdef public unsigned int eoi_address
    cdef public bint eoi_promised
    cdef readonly unsigned int initial_id
    cdef readonly bint boot
    cdef object bus
    cdef public object external
    cdef public object on_change
    cdef public object on_nmi
    cdef public object on_init
    cdef public object on_startup
    cdef public bint external_wanted
    cdef public bint pending
    cdef public unsigned int base
    cdef public unsigned int id
    cdef public unsigned int ldr
    cdef public unsigned int dfr
    cdef public unsigned int svr
    cdef public unsigned int esr
    cdef public unsigned int errors
    cdef public unsigned int icr_low
    cdef public unsigned int icr_high

    cdef int publish(self) except -1
    cpdef bint is_on(self) noexcept
    cpdef bint is_enabled(self) noexcept
    cpdef unsigned int processor_priority(self) except? 0xFFFFFFFF
    cdef int deliverable(self) except -2
    cdef bint external_asks(self) noexcept
    cdef int update(self) except -1
    cdef int request(self, unsigned int vector, bint level) except -1
    cdef int error(self, unsigned int bit) except -1
    cdef int wire_changed(self, unsigned int number, bint rising) except -1
    cdef int end_of_interrupt(self) except -1
    cdef int settle(self) except -1
    cdef int withdraw(self) except -1
    cdef int command(self) except -1
    cpdef bint is_destination(self, bint logical, unsigned int destination) noexcept
