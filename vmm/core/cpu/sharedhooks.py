"""The callbacks that an engine calls a CPU with a host thread of its own with.

They take the place of `vmm.core.hooks`.
"""

import ctypes

import cython

from vmm.core.cpu.sharedcpu import SharedCpu
from vmm.core.hooks import FIRST_MARK, before_callback, c_function, marked
from vmm.core.mmu.tlbfill import fill_callback

if not cython.compiled:
    from vmm.core.native import return_address

# Exits that concern the CPU's own state and the clock alone (AMD's exit codes).
EXIT_RDTSC = cython.declare(cython.uint, 0x16E)
EXIT_CPUID = cython.declare(cython.uint, 0x172)
EXIT_PAUSE = cython.declare(cython.uint, 0x177)
EXIT_HLT = cython.declare(cython.uint, 0x178)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raw_block(
    _engine: cython.size_t, address: cython.ulonglong, size: cython.uint, data: cython.p_void
) -> cython.void:
    """A translated block is entered."""
    cython.cast(SharedCpu, data).block(
        cython.cast(cython.uint, address), size, cython.cast(cython.size_t, return_address(0))
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raw_interrupt(_engine: cython.size_t, number: cython.uint, data: cython.p_void) -> cython.void:
    """An exit."""
    if number == EXIT_RDTSC or number == EXIT_CPUID or number == EXIT_PAUSE or number == EXIT_HLT:
        with cython.gil:
            cython.cast(SharedCpu, data).serve_own(number)
        return
    cython.cast(SharedCpu, data).leave()
    with cython.gil:
        cython.cast(SharedCpu, data).serve(number)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raw_in(
    _engine: cython.size_t, port: cython.uint, size: cython.int, data: cython.p_void
) -> cython.uint:
    """IN."""
    cython.cast(SharedCpu, data).leave()
    with cython.gil:
        return cython.cast(SharedCpu, data).port_in(port, size)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raw_out(
    _engine: cython.size_t,
    port: cython.uint,
    size: cython.int,
    value: cython.uint,
    data: cython.p_void,
) -> cython.void:
    """OUT."""
    cython.cast(SharedCpu, data).leave()
    with cython.gil:
        cython.cast(SharedCpu, data).port_out(port, size, value)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raw_sysenter(_engine: cython.size_t, data: cython.p_void) -> cython.void:
    """SYSENTER."""
    cython.cast(SharedCpu, data).leave()
    with cython.gil:
        cython.cast(SharedCpu, data).system_call(True)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raw_syscall(_engine: cython.size_t, data: cython.p_void) -> cython.void:
    """SYSCALL."""
    cython.cast(SharedCpu, data).leave()
    with cython.gil:
        cython.cast(SharedCpu, data).system_call(False)


def python_callback(cell: SharedCpu, result, arguments, method, *, takes_data=False):
    """Wrap a method for ctypes, where the core is not compiled; answers its address."""
    taken = slice(None, None if takes_data else -1)

    def call(_engine, *arguments):
        return method(*arguments[taken])

    return c_function(cell.keep, result, arguments, call)


def leaving(cell: SharedCpu, method):
    """The method, with guest code left first."""

    def call(*values):
        cell.leave()
        return method(*values)

    return call


def serve_either(cell: SharedCpu, number):
    """What `raw_interrupt` does."""
    if number in (EXIT_RDTSC, EXIT_CPUID, EXIT_PAUSE, EXIT_HLT):
        cell.serve_own(number)
    else:
        cell.leave()
        cell.serve(number)


def shared_callbacks(cell: SharedCpu):
    """{name: (address, user data)} of what an engine calls, as `vmm.core.hooks.callbacks` has it.

    The cell must outlive their use.
    """
    if cython.compiled:
        data = cython.cast(cython.size_t, cython.cast(cython.p_void, cell))
        table = {
            "interrupt": (
                cython.cast(cython.size_t, cython.cast(cython.p_void, raw_interrupt)),
                data,
            ),
            "block": (cython.cast(cython.size_t, cython.cast(cython.p_void, raw_block)), data),
            "in": (cython.cast(cython.size_t, cython.cast(cython.p_void, raw_in)), data),
            "out": (cython.cast(cython.size_t, cython.cast(cython.p_void, raw_out)), data),
            "sysenter": (
                cython.cast(cython.size_t, cython.cast(cython.p_void, raw_sysenter)),
                data,
            ),
            "syscall": (
                cython.cast(cython.size_t, cython.cast(cython.p_void, raw_syscall)),
                data,
            ),
            "before": before_callback(cell.vcpu),
            "fill": fill_callback(cell.vcpu.fill, False),
        }
    else:
        u32, u64, integer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int
        methods = {
            "interrupt": (None, (u32,), lambda number: serve_either(cell, number)),
            "in": (u32, (u32, integer), leaving(cell, cell.port_in)),
            "out": (None, (u32, integer, u32), leaving(cell, cell.port_out)),
            "sysenter": (None, (), leaving(cell, lambda: cell.system_call(True))),
            "syscall": (None, (), leaving(cell, lambda: cell.system_call(False))),
        }
        table = {
            name: (python_callback(cell, *signature), 0) for name, signature in methods.items()
        }
        block = marked(cell.vcpu, cell.block)
        table["block"] = (
            python_callback(cell, None, (u64, u32), block, takes_data=True),
            FIRST_MARK,
        )
        table["before"] = before_callback(cell.vcpu)
    return table
