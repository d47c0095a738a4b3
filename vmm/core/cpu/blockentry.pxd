cimport cython

from vmm.core.code.blocks cimport BlockMeter
from vmm.core.code.blocktable cimport BlockTable
from vmm.core.code.flagkeeper cimport FlagKeeper
from vmm.core.code.inline cimport InlineCounter
from vmm.core.code.strings cimport StringSweep
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.memory cimport GuestMemory
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadow cimport ShadowMmu
from vmm.core.native cimport return_address
from vmm.core.ports.access cimport PortAccess

cdef class BlockEntry:
    cdef public CpuState cpu
    cdef readonly GuestMemory memory
    cdef public GuestPaging paging
    cdef public ShadowMmu shadow
    cdef public BlockMeter meter
    cdef readonly BlockTable table
    cdef public FlagKeeper keeper
    cdef readonly InlineCounter inline
    cdef StringSweep strings
    cdef public PortAccess ports
    cdef public bint irq_pending
    cdef public unsigned long long instruction_limit
    cdef public unsigned long long deadline
    cdef public unsigned int stop_reason
    cdef public object error

    @cython.final
    cdef bint is_over(self) noexcept nogil
    cdef int before(self, unsigned long long address, unsigned int size) except -1
    @cython.final
    cdef bint block(self, unsigned int address, unsigned int size, size_t place) noexcept nogil
    @cython.final
    cdef void called(self, unsigned int address, unsigned int size, size_t engine, size_t at) noexcept nogil
    @cython.final
    cdef void late_block(self) noexcept nogil
    @cython.final
    cdef void arm(self) noexcept nogil
    @cython.final
    cdef void enter_block(self, unsigned int address, unsigned int size, size_t place) noexcept nogil
    cdef bint needs_step(self, unsigned int address) noexcept nogil
    cdef int attention(self, unsigned int address) except -1
    cdef int halt(self, unsigned int reason) except -1

cdef void raw_block(size_t engine, unsigned long long address, unsigned int size, void *data) noexcept nogil
cdef void raw_late_block(size_t *hot) noexcept nogil
