cdef extern from *:
    """
    #include <sched.h>
    static inline void vmirom_fence(void) { __sync_synchronize(); }
    static inline void vmirom_relax(unsigned int turn)
    {
        if (turn & 63) __builtin_ia32_pause(); else sched_yield();
    }
    """
    # Every store before it is seen before any load behind it is made.
    void fence "vmirom_fence"() noexcept nogil
    # Let others go on, for about as long as it takes them to see a store.
    void relax "vmirom_relax"(unsigned int) noexcept nogil

cdef class Gate:
    cdef readonly unsigned int count
    cdef unsigned int[::1] inside
    cdef unsigned int[::1] wanted
    cdef object turn
    cdef object holder
    cdef public unsigned long long clock
    cdef unsigned long long[::1] works

    cpdef bint is_closed(self) noexcept nogil
    cdef bint enter(self, unsigned int index) noexcept nogil
    cdef void leave(self, unsigned int index) noexcept nogil
    cdef void wait_for(self, unsigned int index) noexcept nogil
    cdef bint wait_shortly(self) noexcept nogil
    cdef unsigned long long others(self, unsigned int index) noexcept
