from vmm.core.code.blocks cimport BlockMeter

cdef class InlineCounter:
    cdef BlockMeter meter
    cdef public bint wanted
    cdef readonly unsigned long long placed
    cdef size_t callback
    cdef size_t question
    cdef size_t data
    cdef size_t low
    cdef size_t high

    cdef void put(self, size_t at, size_t engine) noexcept nogil
    cdef unsigned int call_of(self, size_t at, size_t function, bint before) noexcept nogil
    cdef size_t displacement(self, unsigned char *code) noexcept nogil
    cdef unsigned int constant(self, unsigned char *code, unsigned int number, unsigned long long value) noexcept nogil
    cdef unsigned int constant_before(self, unsigned char *code, unsigned int number, unsigned long long value) noexcept nogil
    cdef bint holds(self, unsigned char *code, unsigned long long value, unsigned int size) noexcept nogil
    cdef unsigned int write_plain(self, unsigned char *start, unsigned int slot, unsigned long long count, unsigned int behind) noexcept nogil
    cdef unsigned int write_rom(self, unsigned char *start, unsigned int slot, unsigned long long count, unsigned int behind) noexcept nogil
    cdef void write(self, unsigned char *code, unsigned long long value, unsigned int size) noexcept nogil
    cdef find(self, size_t at)
