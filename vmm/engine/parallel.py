"""Have this build of Unicorn make locked instructions atomic. Tried, not believed.

`vmm.core.cpu.sharedcpu` says how it is asked to, `vmm.engine.exchange` what it has to be helped
with. An access that crosses its natural alignment tells the two kinds of translation apart
without a second thread: the plain one carries it out, the parallel one leaves it for
somebody who has stopped all others.
"""

import ctypes
import mmap
import struct
from functools import cache

from unicorn import Uc
from unicorn import unicorn_const as const

from vmm.core.errors import EngineFailure
from vmm.engine.calibration import engine_handle, library, locate_state
from vmm.engine.exchange import make_exchange_atomic

__all__ = ["prepare_parallel"]

_CF_PARALLEL = 0x00080000
_START, _CELL = 0x1000, 0x8003
_CODE = b"\xf0\xff\x05" + struct.pack("<I", _CELL) + b"\xf4"
"""lock incl _CELL; hlt."""
_ENOUGH = 3


def _counted(*, parallel: bool) -> int:
    """What the instruction leaves in memory."""
    memory = mmap.mmap(-1, 1 << 16)
    memory[_START : _START + len(_CODE)] = _CODE
    uc = Uc(const.UC_ARCH_X86, const.UC_MODE_32)
    at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    uc.mem_map_ptr(0, len(memory), const.UC_PROT_ALL, at)
    flags = ctypes.c_uint32.from_address(locate_state(uc).next_flags)
    entered = 0

    def block(_uc: Uc, _address: int, _size: int, _data: object) -> None:
        nonlocal entered
        entered += 1
        if parallel:
            flags.value = _CF_PARALLEL
        if entered == _ENOUGH:
            uc.emu_stop()

    uc.hook_add(const.UC_HOOK_BLOCK, block)
    if parallel:
        flags.value = _CF_PARALLEL
    start = library().uc_emu_start
    start(
        ctypes.c_void_p(engine_handle(uc)),
        *map(ctypes.c_uint64, (_START, 0xFFFFFFFF, 0)),
        ctypes.c_size_t(0),
    )
    value: int = struct.unpack_from("<I", memory, _CELL)[0]
    return value


@cache
def prepare_parallel() -> None:
    """Make XCHG atomic; the flags of the next block must do what they should for all others.

    Raises `EngineFailure` where locked instructions cannot be made atomic.
    """
    make_exchange_atomic()
    plain, parallel = _counted(parallel=False), _counted(parallel=True)
    if (plain, parallel) != (1, 0):
        raise EngineFailure(
            "self-test: locked instructions cannot be made atomic between threads: expected a "
            f"count of 1 plain and 0 in parallel, but Unicorn made {plain} and {parallel}"
        )
