from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.cpu.vcpu cimport Vcpu
from vmm.core.mmu.shadowpages cimport ShadowPages
from vmm.core.native cimport FillCall, LeaveCall, PageCall, RestoreCall, SetPageCall

cdef class TlbFill:
    cdef Vcpu vcpu
    cdef CpuState cpu
    cdef ShadowPages pages
    cdef unsigned long long size
    cdef bint serves
    cdef SetPageCall set_page
    cdef PageCall set_dirty
    cdef RestoreCall restore_state
    cdef LeaveCall leave
    cdef FillCall engine_walk

    cdef long long found(self, unsigned long long address, int access, bint user) noexcept nogil
    cdef unsigned char fill(self, size_t engine_cpu, unsigned long long address, int size, int access, int ring, unsigned char probe, size_t code) noexcept nogil
    cdef long long serve(self, unsigned int address, unsigned int error, int access, bint user) noexcept
    cdef long long code_now(self) noexcept
    cdef bint is_code(self, long long entry) noexcept nogil

cdef unsigned char raw_fill(size_t engine_cpu, unsigned long long address, int size, int access, int ring, unsigned char probe, size_t code) noexcept nogil
