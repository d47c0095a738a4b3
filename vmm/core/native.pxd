# Types of the engine's entry points, as the compiled core calls them.
ctypedef int (*StopCall)(size_t) noexcept nogil
ctypedef int (*RegisterCall)(size_t, int, size_t) noexcept nogil
ctypedef void (*PageCall)(size_t, unsigned long long) noexcept nogil
ctypedef void (*SetPageCall)(size_t, unsigned long long, unsigned long long, int, int, unsigned long long) noexcept nogil
ctypedef unsigned char (*FillCall)(size_t, unsigned long long, int, int, int, unsigned char, size_t) noexcept nogil
ctypedef unsigned char (*RestoreCall)(size_t, size_t, unsigned char) noexcept nogil
ctypedef void (*LeaveCall)(size_t) noexcept nogil
ctypedef void (*RangeCall)(size_t, unsigned long long, unsigned long long) noexcept nogil

cdef extern from *:
    """
    #include <time.h>
    #define vmirom_barrier() __asm__ volatile("" ::: "memory")
    static inline unsigned long long vmirom_host_ns(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (unsigned long long)now.tv_sec * 1000000000u + (unsigned long long)now.tv_nsec;
    }
    """
    # The host's clock in nanoseconds, to measure with; no count depends on it.
    unsigned long long host_ns "vmirom_host_ns"() noexcept nogil
    # Where the function that asks goes on in its caller, with 0; gcc and clang know it.
    void *return_address "__builtin_return_address"(unsigned int) noexcept nogil
    # Every store before it is made before any behind it; x86 keeps what the compiler does.
    void barrier "vmirom_barrier"() noexcept nogil
