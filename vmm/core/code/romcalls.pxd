from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.mmu.paging cimport GuestPaging

cdef class RomCalls:
    cdef CpuState cpu
    cdef GuestPaging paging
    cdef public unsigned int start
    cdef public unsigned int end
    cdef public unsigned int watched
    cdef public unsigned int asked
    cdef public object answers
    cdef public set returns
    cdef public unsigned long long[::1] times
    cdef public unsigned long long[::1] instructions
    cdef public unsigned int current
    cdef public bint counted
    cdef public unsigned int slot
    cdef public unsigned long long began
    cdef public unsigned long long booked

    cdef Py_ssize_t offset_of(self, unsigned int address) except? -1
    cdef bint is_rom(self, unsigned int address) except? True
    cdef int row_at(self, unsigned int address, Py_ssize_t offset) except? -1
    cdef void enter(self, unsigned int row, unsigned int slot, unsigned long long began, unsigned long long rom) noexcept nogil
    cdef bint leave(self) noexcept nogil
    cdef void enter_again(self) noexcept nogil
    cdef void book(self, unsigned long long rom) noexcept nogil
