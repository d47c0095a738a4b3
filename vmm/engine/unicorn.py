"""The default engine: Unicorn as an AMD-V processor.

Unicorn's x86 target still contains QEMU's checks for SVM intercepts. With the CPU
in guest mode and the intercept words set, each intercepted instruction or exception
arrives at an interrupt hook with its exit code, EIP on the instruction, as a real
VM exit would; the world switch itself never runs, so the hook *is* the exit
handler. Code that is not intercepted runs at full speed.
"""

import ctypes
import mmap
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import unicorn
from unicorn import Uc
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

from vmm.core.binding import EngineBinding
from vmm.core.errors import EngineFailure
from vmm.engine.calibration import (
    WALKER,
    StateLocation,
    address_of,
    data_of,
    engine_handle,
    library,
    locate_state,
    locate_walker,
    trust_memory,
)

__all__ = ["POOL_ADDRESS", "WINDOW_ADDRESS", "WINDOW_COUNT", "UnicornEngine", "check_unicorn"]

SUPPORTED_VERSION = "2.1.4"

POOL_ADDRESS = 0xE0000000
"""Where the shadow tables lie in the engine's physical space; no guest mapping leads there."""
WINDOW_ADDRESS = 0xF8000000
WINDOW_COUNT = 256
_SCRATCH_ADDRESS = 0xF0000000
_SCRATCH_SIZE = 0x4000
_MSR_BITMAP = 0x2000
_MSR_BITMAP_POINTER = 0x48
_FAULT_ADDRESS = 0x80

_SYSENTER_MSRS = range(0x174, 0x177)

_SYSENTER_NAMES = dict(
    zip(("sysenter_cs", "sysenter_esp", "sysenter_eip"), _SYSENTER_MSRS, strict=True)
)
_FLOATING = {
    "fcw": x86.UC_X86_REG_FPCW,
    "fsw": x86.UC_X86_REG_FPSW,
    "ftw": x86.UC_X86_REG_FPTAG,
    "mxcsr": x86.UC_X86_REG_MXCSR,
    "fip": x86.UC_X86_REG_FIP,
    "fcs": x86.UC_X86_REG_FCS,
    "fdp": x86.UC_X86_REG_FDP,
    "fds": x86.UC_X86_REG_FDS,
    **{f"st{i}": x86.UC_X86_REG_FP0 + i for i in range(8)},
    **{f"xmm{i}": x86.UC_X86_REG_XMM0 + i for i in range(8)},
}
_HF_GUEST = 1 << 21
_EFER_NXE = 0x800
_CR4_PAE = 0x20

# Exit codes 0x60 and up, as bits of the intercept word.
_INTERCEPTED = (0x6E, 0x72, 0x75, 0x76, 0x78, 0x79, 0x7C, 0x7F, 0x81, 0x89, 0x8A, 0x8B)
_PAUSE = 0x77
# CR0, CR3 and CR4 both ways; every debug register, for writing DR7 can crash the engine.
_CONTROL_REGISTERS = 0x19
_DEBUG_REGISTERS = 0xFF
_EXCEPTIONS = 0xFFFFFFFF

_EIP_OFFSET = 128
_EXIT_CPUID, _EXIT_HLT, _EXIT_WBINVD = 0x172, 0x178, 0x189
_TEST_START = 0x1000
_TEST_CODE = b"\x0f\xa2\x0f\x09\xf4"
"""CPUID; WBINVD; HLT."""

# Behind the address space: at a real "until" address the engine compiles a HLT, which
# the guest would find there.
_NO_UNTIL = 1 << 40


class UnicornEngine:
    """One guest CPU on Unicorn.

    `ram` is the guest's memory; `pool` becomes the shadow tables. The engine works
    on both buffers in place and must not outlive them. Of several engines that share
    them only one may run at a time, unless each asks for blocks whose locked instructions are
    atomic to another host thread (`vmm.core.cpu.sharedcpu`). With `pauses` PAUSE exits, too.
    """

    def __init__(self, ram: mmap.mmap, pool: mmap.mmap, *, pauses: bool = False) -> None:
        check_unicorn()
        self._assemble(ram, pool, pauses=pauses)

    def _assemble(self, ram: mmap.mmap, pool: mmap.mmap, *, pauses: bool = False) -> None:
        if unicorn.__version__ != SUPPORTED_VERSION:
            raise EngineFailure(
                f"this engine was verified with Unicorn {SUPPORTED_VERSION}, "
                f"but {unicorn.__version__} is installed"
            )
        self._uc = Uc(const.UC_ARCH_X86, const.UC_MODE_32)
        # The shadow tables need PAE and NX, which the default model lacks.
        self._uc.ctl_set_cpu_model(x86.UC_CPU_X86_COREDUO)
        self._scratch = mmap.mmap(-1, _SCRATCH_SIZE)
        self._keep: list[object] = [ram, pool]
        self._map(0, ram)
        self._map(POOL_ADDRESS, pool)
        self._map(_SCRATCH_ADDRESS, self._scratch)
        self._library = library()
        self._location = locate_state(self._uc)
        self._start = self._library.uc_emu_start
        self._start.restype = ctypes.c_int
        self._start.argtypes = [
            ctypes.c_void_p,
            ctypes.c_uint64,
            ctypes.c_uint64,
            ctypes.c_uint64,
            ctypes.c_size_t,
        ]
        self._handle = engine_handle(self._uc)
        self._before = (0, 0)
        self._called_before: dict[int, ctypes.c_size_t] = {}
        self._walker = locate_walker(self._uc, self._location.cpu)
        # RDTSC is intercepted: nobody adds the offset.
        self._owner = self._location.address + self._location.tsc_offset
        trust_memory(self._uc, address_of("check_exit_request_x86_64"))
        self._enter_guest_mode(self._location, pauses=pauses)

    def _map(self, address: int, buffer: mmap.mmap) -> None:
        pointer = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        self._uc.mem_map_ptr(address, len(buffer), const.UC_PROT_ALL, pointer)

    def _enter_guest_mode(self, at: StateLocation, *, pauses: bool) -> None:
        # NX and PAE must be on before the MSR intercept is.
        self._uc.msr_write(0xC0000080, _EFER_NXE)
        self._uc.reg_write(x86.UC_X86_REG_CR4, _CR4_PAE)
        self._scratch[_MSR_BITMAP:_SCRATCH_SIZE] = b"\xff" * (_SCRATCH_SIZE - _MSR_BITMAP)
        for register in _SYSENTER_MSRS:
            # Two bits a register; real monitors let these through as well.
            self._scratch[_MSR_BITMAP + register // 4] &= ~(3 << (register % 4 * 2)) & 0xFF
        struct.pack_into("<Q", self._scratch, _MSR_BITMAP_POINTER, _SCRATCH_ADDRESS + _MSR_BITMAP)
        codes = (*_INTERCEPTED, _PAUSE) if pauses else _INTERCEPTED
        intercepts = sum(1 << (code - 0x60) for code in codes)
        hflags = self._peek(at.hflags, "<I")
        self._poke(at.hflags, "<I", hflags | _HF_GUEST)
        self._poke(at.vmcb, "<Q", _SCRATCH_ADDRESS)
        self._poke(at.intercepts, "<Q", intercepts)
        self._poke(at.cr_read, "<H", _CONTROL_REGISTERS)
        self._poke(at.cr_write, "<H", _CONTROL_REGISTERS)
        self._poke(at.dr_read, "<H", _DEBUG_REGISTERS)
        self._poke(at.dr_write, "<H", _DEBUG_REGISTERS)
        self._poke(at.exceptions, "<I", _EXCEPTIONS)

    def _peek(self, offset: int, form: str) -> int:
        raw = ctypes.string_at(self._location.address + offset, struct.calcsize(form))
        value: int = struct.unpack(form, raw)[0]
        return value

    def _poke(self, offset: int, form: str, value: int) -> None:
        raw = struct.pack(form, value)
        ctypes.memmove(self._location.address + offset, raw, len(raw))

    def binding(self) -> EngineBinding:
        """What the core needs to work on this CPU."""
        scratch = ctypes.addressof(ctypes.c_char.from_buffer(self._scratch))
        return EngineBinding(
            handle=self._handle,
            state=self._location.address,
            state_size=(self._location.exceptions + 8) & ~7,
            error_code_offset=self._location.error_code,
            sysenter_offset=self._location.sysenter,
            sysenter_stack_offset=(self._location.sysenter + 8) & ~7,
            fault_address=scratch + _FAULT_ADDRESS,
            cpu=self._location.cpu,
            next_flags=self._location.next_flags,
            owner_offset=self._owner - self._location.cpu,
            walk=address_of(WALKER),
            set_page=address_of("tlb_set_page_x86_64"),
            set_dirty=address_of("tlb_set_dirty_x86_64"),
            restore_state=address_of("cpu_restore_state_x86_64"),
            leave=address_of("cpu_loop_exit_noexc_x86_64"),
            stop=address_of("uc_emu_stop"),
            flush_page=address_of("tlb_flush_page_x86_64"),
            # Takes offsets in all memory ever mapped, of which the guest's is the first.
            forget_code=address_of("tb_invalidate_phys_range_x86_64"),
            forget_all_code=address_of("tb_flush_x86_64"),
            question=address_of("helper_check_exit_request_x86_64"),
            read_register=address_of("uc_reg_read"),
            write_register=address_of("uc_reg_write"),
            flags_id=x86.UC_X86_REG_EFLAGS,
            cr0_id=x86.UC_X86_REG_CR0,
            cr3_id=x86.UC_X86_REG_CR3,
            cr4_id=x86.UC_X86_REG_CR4,
        )

    def connect(
        self,
        callbacks: Mapping[str, tuple[int, int]],
        mmio_read: Callable[[int, int], int],
        mmio_write: Callable[[int, int, int], None],
    ) -> None:
        """Install the core's callbacks (`vmm.core.hooks`), then start paging.

        Where there is no callback "fill" the engine's own walker fills the TLB.

        The MMIO functions take the offset from `WINDOW_ADDRESS` and the size.
        """
        self._hook(const.UC_HOOK_INTR, callbacks["interrupt"])
        block = self._hook(const.UC_HOOK_BLOCK, callbacks["block"])
        self._block_data = ctypes.c_size_t.from_address(data_of(block, callbacks["block"]))
        self._hook(const.UC_HOOK_INSN, callbacks["in"], x86.UC_X86_INS_IN)
        self._hook(const.UC_HOOK_INSN, callbacks["out"], x86.UC_X86_INS_OUT)
        self._hook(const.UC_HOOK_INSN, callbacks["sysenter"], x86.UC_X86_INS_SYSENTER)
        self._hook(const.UC_HOOK_INSN, callbacks["syscall"], x86.UC_X86_INS_SYSCALL)
        self._before = callbacks["before"]
        if "fill" in callbacks:
            walker, owner = callbacks["fill"]
            ctypes.c_size_t.from_address(self._owner).value = owner
            ctypes.c_size_t.from_address(self._walker).value = walker
        self._uc.mmio_map(
            WINDOW_ADDRESS,
            WINDOW_COUNT * 4096,
            lambda _uc, offset, size, _data: mmio_read(offset, size),
            None,
            lambda _uc, offset, size, value, _data: mmio_write(offset, size, value),
            None,
        )

    def _hook(
        self,
        kind: int,
        callback: tuple[int, int],
        instruction: int | None = None,
        where: tuple[int, int] = (1, 0),
    ) -> ctypes.c_size_t:
        """Have something called, everywhere or at the addresses of a range; answers the hook."""
        address, data = callback
        handle = ctypes.c_size_t()
        add = self._library.uc_hook_add
        add.restype = ctypes.c_int
        extra = () if instruction is None else (ctypes.c_int(instruction),)
        status = add(
            ctypes.c_void_p(self._handle),
            ctypes.byref(handle),
            ctypes.c_int(kind),
            ctypes.c_void_p(address),
            ctypes.c_void_p(data),
            *map(ctypes.c_uint64, where),
            *extra,
        )
        if status:
            raise EngineFailure(f"Unicorn refused a hook of kind {kind:#x}: error {status}")
        return handle

    def reset_segments(self, gdt: int, gdt_limit: int, code: int, data: int) -> None:
        """Flat protected mode with descriptors that lie in guest memory already."""
        uc = self._uc
        uc.reg_write(x86.UC_X86_REG_GDTR, (0, gdt, gdt_limit, 0))
        uc.reg_write(x86.UC_X86_REG_IDTR, (0, 0, 0, 0))
        uc.reg_write(x86.UC_X86_REG_CS, code)
        for register in (
            x86.UC_X86_REG_SS,
            x86.UC_X86_REG_DS,
            x86.UC_X86_REG_ES,
            x86.UC_X86_REG_FS,
            x86.UC_X86_REG_GS,
        ):
            uc.reg_write(register, data)

    def run(self, eip: int, instructions: int = 0) -> None:
        """Run from `eip` until the core asks to stop, or for so many instructions.

        Raises `EngineFailure` when Unicorn itself gives up.
        """
        status = self._start(self._handle, eip, _NO_UNTIL, 0, instructions)
        if status:
            raise EngineFailure(f"Unicorn stopped with error {status} near {self.eip():#010x}")

    def break_at(self, addresses: Sequence[int]) -> None:
        """End blocks before these linear addresses: the run stops there as at a HLT.

        Code that is translated already goes on as it was until it is forgotten.
        """
        self._uc.ctl_exits_enabled(True)  # noqa: FBT003 - Unicorn's signature
        self._uc.ctl_set_exits(list(addresses))

    def mark_blocks(self, data: int) -> None:
        """Have code that is translated from now on call back at its blocks with this data."""
        self._block_data.value = data

    def call_before(self, addresses: Iterable[int]) -> None:
        """Call "before" of `connect` at the instructions at these linear addresses and no others.

        As `break_at`, it is for what is translated from now on. The engine must not be running.
        """
        wanted = set(addresses)
        for address in self._called_before.keys() - wanted:
            hook = self._called_before.pop(address)
            self._library.uc_hook_del(ctypes.c_void_p(self._handle), hook)
        for address in sorted(wanted - self._called_before.keys()):
            self._called_before[address] = self._hook(
                const.UC_HOOK_CODE, self._before, where=(address, address)
            )

    def read_register(self, name: str) -> int:
        """An x87, SSE or SYSENTER register, by its name in `vmm.core.registerids`."""
        if name in _SYSENTER_NAMES:
            return int(self._uc.msr_read(_SYSENTER_NAMES[name]))
        value = self._uc.reg_read(_FLOATING[name])
        if isinstance(value, tuple):
            mantissa, exponent = value
            return int(mantissa) | int(exponent) << 64
        return int(value)

    def write_register(self, name: str, value: int) -> None:
        """Set one."""
        if name in _SYSENTER_NAMES:
            self._uc.msr_write(_SYSENTER_NAMES[name], value)
        elif name.startswith("st"):
            self._uc.reg_write(_FLOATING[name], (value & (1 << 64) - 1, value >> 64))
        else:
            self._uc.reg_write(_FLOATING[name], value)

    def eip(self) -> int:
        """Where the guest stands."""
        return self._peek(_EIP_OFFSET, "<Q") & 0xFFFFFFFF

    def stop(self) -> None:
        """Make `run` return; safe from a signal handler."""
        self._uc.emu_stop()

    def exits_of(self, code: bytes, start: int) -> list[tuple[int, int]]:
        """Run two-byte instructions at `start`, without a core, up to a HLT.

        Answers (number, EIP) of each exit, stepping over the instruction that made it.
        """
        seen: list[tuple[int, int]] = []

        def exited(_uc: Uc, number: int, _data: object) -> None:
            seen.append((number, self.eip()))
            self._poke(_EIP_OFFSET, "<Q", self.eip() + 2)
            if number == _EXIT_HLT or len(seen) > len(code):
                self.stop()

        self._uc.mem_write(start, code)
        self._uc.hook_add(const.UC_HOOK_INTR, exited)
        self.run(start)
        return seen


@cache
def check_unicorn() -> None:
    """Prove, once a process, that this build of Unicorn reports intercepts.

    The engine rests on state that no interface documents. So before the first guest
    a tiny one runs: its intercepts must arrive with their exit codes, on their
    instructions, and it must go on where it is told to. Raises `EngineFailure`.
    """
    engine = UnicornEngine.__new__(UnicornEngine)
    engine._assemble(mmap.mmap(-1, 1 << 16), mmap.mmap(-1, 1 << 12))  # noqa: SLF001 - untested yet
    found = engine.exits_of(_TEST_CODE, _TEST_START)
    expected = [
        (_EXIT_CPUID, _TEST_START),
        (_EXIT_WBINVD, _TEST_START + 2),
        (_EXIT_HLT, _TEST_START + 4),
    ]
    if found != expected:
        raise EngineFailure(
            f"self-test: expected the exits {expected}, but Unicorn reported {found}"
        )
