from vmm.core.native cimport PageCall, RangeCall, RegisterCall, StopCall

cdef class CpuState:
    cdef unsigned long long[::1] quads
    cdef unsigned int[::1] words
    cdef unsigned int[::1] fault
    cdef unsigned int[::1] scratch
    cdef size_t handle
    cdef size_t cpu
    cdef size_t scratch_address
    cdef unsigned int error_index
    cdef unsigned int sysenter_word
    cdef unsigned int sysenter_quad
    cdef int flags_id
    cdef int cr0_id
    cdef int cr3_id
    cdef int cr4_id
    cdef StopCall call_stop
    cdef PageCall call_flush_page
    cdef RangeCall call_forget_code
    cdef PageCall call_forget_all
    cdef size_t question
    cdef RegisterCall call_read
    cdef RegisterCall call_write
    cdef object keep
    cdef public unsigned int root
    cdef public bint tlb_behind

    cpdef unsigned int reg(self, unsigned int number) except? 0xFFFFFFFF
    cpdef int set_reg(self, unsigned int number, unsigned int value) except -1
    cpdef unsigned int eip(self) except? 0xFFFFFFFF
    cpdef unsigned int linear(self, unsigned int eip) noexcept
    cpdef int set_eip(self, unsigned int value) except -1
    cdef int go_back(self, unsigned int length) except -1
    cpdef unsigned int cpl(self) except? 0xFFFFFFFF
    cpdef unsigned int eflags(self) except? 0xFFFFFFFF
    cpdef int set_eflags(self, unsigned int value) except -1
    cdef unsigned long long flag_source(self) noexcept
    cdef unsigned int flag_operation(self) noexcept
    cdef int set_flag_source(self, unsigned long long source, unsigned int operation) except -1
    cpdef int clear_system_flags(self, unsigned int mask) except -1
    cpdef int clear_interrupt_shadow(self) except -1
    cdef bint can_interrupt(self) noexcept nogil
    cpdef unsigned int selector(self, unsigned int segment) except? 0xFFFFFFFF
    cpdef unsigned int base(self, unsigned int segment) except? 0xFFFFFFFF
    cpdef unsigned int limit(self, unsigned int segment) except? 0xFFFFFFFF
    cpdef unsigned int attributes(self, unsigned int segment) except? 0xFFFFFFFF
    cpdef int load_segment(self, unsigned int segment, unsigned int selector, unsigned int low, unsigned int high) except -1
    cpdef int load_table(self, unsigned int table, unsigned int base, unsigned int limit) except -1
    cpdef int load_real_segment(self, unsigned int segment, unsigned int selector) except -1
    cpdef bint code_is_wide(self) noexcept
    cdef bint enter_kernel(self) except? True
    cpdef int enter_ring(self, unsigned int ring) except -1
    cdef unsigned int error_code(self) except? 0xFFFFFFFF
    cdef unsigned int fault_address(self) except? 0xFFFFFFFF
    cdef int set_fault(self, unsigned int address, unsigned int error) except -1
    cpdef unsigned int cr2(self) except? 0xFFFFFFFF
    cpdef int set_cr2(self, unsigned int value) except -1
    cdef int write_cr0(self, unsigned int value) except -1
    cdef int write_cr4(self, unsigned int value) except -1
    cdef int load_root(self, unsigned int root) except -1
    cdef int flush_tlb(self) except -1
    cdef int flush_page(self, unsigned int address) except -1
    cpdef void forget_code(self, unsigned int frame) noexcept nogil
    cdef void stop(self) noexcept nogil
