"""The callbacks that an engine calls into the core, as raw function addresses.

An exception must never cross the engine's frames, which are C and may leave by a
long jump: each callback keeps it in the vCPU, stops the engine, and the run loop
raises it once the engine has returned.
"""

import ctypes

import cython

from vmm.core.cpu.blockentry import block_callback
from vmm.core.cpu.vcpu import Vcpu
from vmm.core.mmu.tlbfill import fill_callback

# The data of the callback at the interpreted core's first block.
FIRST_MARK = 1


@cython.cfunc
@cython.with_gil
@cython.exceptval(check=False)
def raw_interrupt(_engine: cython.size_t, number: cython.uint, data: cython.p_void) -> cython.void:
    """An exit."""
    vcpu: Vcpu = cython.cast(Vcpu, data)
    try:
        vcpu.counters.begin()
        vcpu.exited(number)
        vcpu.counters.end()
    except Exception as error:  # noqa: BLE001 - it must not cross the engine's frames
        vcpu.fail(error)
    vcpu.arm()


@cython.cfunc
@cython.with_gil
@cython.exceptval(check=False)
def raw_in(
    _engine: cython.size_t, port: cython.uint, size: cython.int, data: cython.p_void
) -> cython.uint:
    """IN."""
    vcpu: Vcpu = cython.cast(Vcpu, data)
    value: cython.uint = 0
    try:
        vcpu.counters.begin()
        value = vcpu.port_in(port, size)
        vcpu.counters.end()
    except Exception as error:  # noqa: BLE001 - it must not cross the engine's frames
        vcpu.fail(error)
    vcpu.arm()
    return value


@cython.cfunc
@cython.with_gil
@cython.exceptval(check=False)
def raw_out(
    _engine: cython.size_t,
    port: cython.uint,
    size: cython.int,
    value: cython.uint,
    data: cython.p_void,
) -> cython.void:
    """OUT."""
    vcpu: Vcpu = cython.cast(Vcpu, data)
    try:
        vcpu.counters.begin()
        vcpu.port_out(port, size, value)
        vcpu.counters.end()
    except Exception as error:  # noqa: BLE001 - it must not cross the engine's frames
        vcpu.fail(error)
    vcpu.arm()


@cython.cfunc
@cython.with_gil
@cython.exceptval(check=False)
def raw_sysenter(_engine: cython.size_t, data: cython.p_void) -> cython.void:
    """SYSENTER."""
    vcpu: Vcpu = cython.cast(Vcpu, data)
    try:
        vcpu.sysenter()
    except Exception as error:  # noqa: BLE001 - it must not cross the engine's frames
        vcpu.fail(error)
    vcpu.arm()


@cython.cfunc
@cython.with_gil
@cython.exceptval(check=False)
def raw_syscall(_engine: cython.size_t, data: cython.p_void) -> cython.void:
    """SYSCALL."""
    vcpu: Vcpu = cython.cast(Vcpu, data)
    try:
        vcpu.syscall()
    except Exception as error:  # noqa: BLE001 - it must not cross the engine's frames
        vcpu.fail(error)
    vcpu.arm()


@cython.cfunc
@cython.with_gil
@cython.exceptval(check=False)
def raw_before(
    _engine: cython.size_t, address: cython.ulonglong, size: cython.uint, data: cython.p_void
) -> cython.void:
    """An instruction is next whose flags are to be kept."""
    vcpu: Vcpu = cython.cast(Vcpu, data)
    try:
        vcpu.before(address, size)
    except Exception as error:  # noqa: BLE001 - it must not cross the engine's frames
        vcpu.fail(error)


def before_callback(vcpu: Vcpu):
    """(address, user data) of what an engine calls before such an instruction."""
    if cython.compiled:
        return (
            cython.cast(cython.size_t, cython.cast(cython.p_void, raw_before)),
            cython.cast(cython.size_t, cython.cast(cython.p_void, vcpu)),
        )
    else:  # noqa: RET505 - the branch is chosen by the compiler
        u32, u64 = ctypes.c_uint32, ctypes.c_uint64
        return (python_callback(vcpu, None, (u64, u32), vcpu.before, None), 0)


def marked(vcpu, method):
    """`method(address, size, place)` as a callback at each block, which takes its data as well.

    The engine compiles the data of the callback into each translation. It is counted up whenever
    it comes back, so that every translation has a mark of its own: to the interpreted core, its
    place.
    """
    latest = FIRST_MARK

    def block(address, size, mark):
        nonlocal latest
        if mark == latest:
            latest += 1
            vcpu.mark_blocks(latest)
        # The engine goes on behind the end of the address space.
        return method(address & 0xFFFFFFFF, size, mark)

    return block


def guarded(vcpu, method, default, takes_data):
    """A callback for ctypes that can never raise into the engine."""
    taken = slice(None, None if takes_data else -1)

    def call(_engine, *arguments):
        try:
            vcpu.counters.begin()
            answer = method(*arguments[taken])
            vcpu.counters.end()
        except Exception as error:  # noqa: BLE001 - it must not cross the engine's frames
            vcpu.fail(error)
            return default
        finally:
            vcpu.arm()
        return default if answer is None else answer

    return call


def c_function(keep, result, arguments, call):
    """The address of a Python function that an engine calls; the list `keep` keeps it alive.

    The engine's handle comes before the `arguments`, and the callback's data behind them.
    """
    wrapped = ctypes.CFUNCTYPE(result, ctypes.c_size_t, *arguments, ctypes.c_void_p)(call)
    keep.append(wrapped)
    return ctypes.cast(wrapped, ctypes.c_void_p).value


def python_callback(vcpu: Vcpu, result, arguments, method, default, *, takes_data=False):
    """Wrap a method for ctypes; answers its address and keeps it alive with the vCPU.

    With `takes_data` the method's last argument is the callback's data.
    """
    return c_function(vcpu.keep, result, arguments, guarded(vcpu, method, default, takes_data))


def callbacks(vcpu: Vcpu):
    """{name: (address, user data)} of what an engine calls.

    Signatures: interrupt(handle, u32 number, data); block(handle, u64 address, u32
    size, data); in(handle, u32 port, int size, data) -> u32; out(handle, u32 port,
    int size, u32 value, data); sysenter(handle, data); syscall(handle,
    data); before(handle, u64 address, u32 size, data). "fill" is there only where the core is
    compiled (`vmm.core.mmu.tlbfill`). The vCPU must outlive their use.
    """
    u32, u64, integer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int
    table = {"before": before_callback(vcpu)}
    if cython.compiled:
        data = cython.cast(cython.size_t, cython.cast(cython.p_void, vcpu))
        table["interrupt"] = (
            cython.cast(cython.size_t, cython.cast(cython.p_void, raw_interrupt)),
            data,
        )
        table["block"] = (block_callback(vcpu), data)
        table["in"] = (cython.cast(cython.size_t, cython.cast(cython.p_void, raw_in)), data)
        table["out"] = (cython.cast(cython.size_t, cython.cast(cython.p_void, raw_out)), data)
        table["sysenter"] = (
            cython.cast(cython.size_t, cython.cast(cython.p_void, raw_sysenter)),
            data,
        )
        table["syscall"] = (
            cython.cast(cython.size_t, cython.cast(cython.p_void, raw_syscall)),
            data,
        )
        table["fill"] = fill_callback(vcpu.fill, True)
    else:
        table["interrupt"] = (python_callback(vcpu, None, (u32,), vcpu.exited, None), 0)
        block = marked(vcpu, vcpu.block)
        table["block"] = (
            python_callback(vcpu, None, (u64, u32), block, None, takes_data=True),
            FIRST_MARK,
        )
        table["in"] = (python_callback(vcpu, u32, (u32, integer), vcpu.port_in, 0), 0)
        table["out"] = (python_callback(vcpu, None, (u32, integer, u32), vcpu.port_out, None), 0)
        table["sysenter"] = (python_callback(vcpu, None, (), vcpu.sysenter, None), 0)
        table["syscall"] = (python_callback(vcpu, None, (), vcpu.syscall, None), 0)
    return table
