# Types of the engine's entry points, as the compiled core calls them.
ctypedef int (*StopCall)(size_t) noexcept nogil
ctypedef int (*RegisterCall)(size_t, int, size_t) noexcept nogil
ctypedef void (*PageCall)(size_t, unsigned long long) noexcept nogil
