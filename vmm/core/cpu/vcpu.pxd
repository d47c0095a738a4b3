from vmm.core.code.fetch cimport InstructionBytes
from vmm.core.code.stores cimport StoreEmulator
from vmm.core.counters cimport Counters
from vmm.core.cpu.blockentry cimport BlockEntry
from vmm.core.cpu.cpustate cimport CpuState
from vmm.core.cpu.delivery cimport Delivery
from vmm.core.cpu.privileged cimport PrivilegedRegisters
from vmm.core.mmu.devicememory cimport DeviceMemory
from vmm.core.mmu.pagefaults cimport PageFaults
from vmm.core.mmu.paging cimport GuestPaging
from vmm.core.mmu.shadow cimport ShadowMmu
from vmm.core.paravirt.batch cimport BatchQueue
from vmm.core.paravirt.doorbell cimport DoorbellPort
from vmm.core.ports.access cimport PortAccess
from vmm.core.ports.reflector cimport Reflector

cdef class Vcpu(BlockEntry):
    cdef readonly unsigned int index
    cdef public Counters counters
    cdef public BatchQueue queue
    cdef public Delivery delivery
    cdef public PrivilegedRegisters privileged
    cdef public DoorbellPort doorbell
    cdef InstructionBytes code
    cdef StoreEmulator stores
    cdef readonly DeviceMemory devices
    cdef public PageFaults faults
    cdef readonly Reflector reflector
    cdef public unsigned int spins
    cdef public unsigned int spin_limit
    cdef public bint window_wanted
    cdef bint asked_device
    cdef public unsigned long long progress
    cdef public unsigned int idle_exits
    cdef public object after_exit
    cdef public object fill
    cdef readonly object mark_blocks
    cdef object keep

    cdef int exited(self, unsigned int number) except -1
    cdef int software_interrupt(self, unsigned int eip) except -1
    cdef int invlpg(self, unsigned int eip) except -1
    cdef bint fault(self, unsigned int address, unsigned int error) noexcept
    cdef unsigned int port_in(self, unsigned int port, unsigned int size) except? 0xFFFFFFFE
    cdef int port_out(self, unsigned int port, unsigned int size, unsigned int value) except -1
    cpdef int sysenter(self) except -1
    cpdef int syscall(self) except -1
    cdef int undefined(self, unsigned int eip) except -1
