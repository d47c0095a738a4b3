from vmm.core.memory cimport GuestMemory

cdef class LocalApic:
    cdef GuestMemory memory
    cdef unsigned int eoi_address
    cdef unsigned int mirror
    cdef bint eoi_promised
    cdef readonly unsigned int initial_id
    cdef readonly bint boot
    cdef object timers
    cdef object now
    cdef object bus
    cdef public object external
    cdef public object on_change
    cdef public object on_nmi
    cdef public object on_init
    cdef public object on_startup
    cdef unsigned int[::1] isr
    cdef unsigned int[::1] irr
    cdef unsigned int[::1] tmr
    cdef unsigned int[::1] lvt
    cdef unsigned int[::1] writable
    cdef unsigned int[::1] wires
    cdef bint external_wanted
    cdef readonly bint pending
    cdef readonly unsigned int base
    cdef readonly unsigned int id
    cdef unsigned int tpr
    cdef unsigned int ldr
    cdef unsigned int dfr
    cdef unsigned int svr
    cdef unsigned int esr
    cdef unsigned int errors
    cdef unsigned int icr_low
    cdef unsigned int icr_high
    cdef unsigned int divide
    cdef unsigned int initial
    cdef unsigned long long left
    cdef unsigned long long started
    cdef unsigned long long fired
    cdef unsigned long long deadline
    cdef unsigned long long due
    cdef object timer_key

    cpdef bint is_on(self) noexcept
    cpdef bint is_enabled(self) noexcept
    cpdef bint is_at(self, unsigned int physical) noexcept
    cpdef unsigned int load(self, unsigned int offset, unsigned int size) except? 0xFFFFFFFF
    cpdef int store(self, unsigned int offset, unsigned int size, unsigned int value) except -1
    cpdef unsigned int read(self, unsigned int offset) except? 0xFFFFFFFF
    cpdef int write(self, unsigned int offset, unsigned int value) except -1
    cdef int write_register(self, unsigned int offset, unsigned int value) except -1
    cdef int publish(self) except -1
    cdef int settle(self) except -1
    cdef int withdraw(self) except -1
    cdef int write_spurious(self, unsigned int value) except -1
    cdef int write_lvt(self, unsigned int number, unsigned int value) except -1
    cdef int error(self, unsigned int bit) except -1
    cdef int top(self, unsigned int[::1] bits) except -2
    cpdef unsigned int processor_priority(self) except? 0xFFFFFFFF
    cdef unsigned int arbitration_priority(self) except? 0xFFFFFFFF
    cdef int deliverable(self) except -2
    cdef bint external_asks(self) noexcept
    cdef int update(self) except -1
    cdef int request(self, unsigned int vector, bint level) except -1
    cdef int end_of_interrupt(self) except -1
    cdef int command(self) except -1
    cpdef bint is_destination(self, bint logical, unsigned int destination) noexcept
    cdef int wire_changed(self, unsigned int number, bint rising) except -1
    cdef unsigned int timer_mode(self) except? 0xFFFFFFFF
    cdef unsigned long long step(self) noexcept
    cdef int start_timer(self, unsigned int count) except -1
    cdef unsigned int current_count(self) except? 0xFFFFFFFF
    cdef int catch_up(self) except -1
    cdef int arm(self) except -1
