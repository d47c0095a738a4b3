"""The engine without us: Unicorn on the same code, no hooks, PAE tables with no-execute.

What straight code costs here beyond that is what counting instructions costs.
"""

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from unicorn import Uc
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

from bench.yardstick import WORKS, load_work, run_work
from vmm.machine import MachineDescription

__all__ = ["Bareness", "compare_with_bare"]

_KERNEL_BASE = 0xC0000000
_MEMORY = 4 << 20
_ROOT, _DIRECTORIES, _TABLE = 0x300000, 0x301000, 0x306000
_STACK = 0x2FFFF0
_LOAD = 0x100000
_PRESENT_WRITABLE, _NO_EXECUTE = 0x63, 1 << 63
_EFER, _NXE = 0xC0000080, 0x800


@dataclass(frozen=True, slots=True)
class Bareness:
    """CPU seconds of the same rounds of a work here and on bare Unicorn, a repetition each."""

    work: str
    here: tuple[float, ...]
    bare: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Here to bare, a repetition each."""
        return [here / bare for here, bare in zip(self.here, self.bare, strict=True)]


class _Bare:
    """The image at 3 GiB as its own boot code has it: code executable, data not."""

    def __init__(self, image: bytes, code_end: int) -> None:
        uc = Uc(const.UC_ARCH_X86, const.UC_MODE_32)
        uc.ctl_set_cpu_model(x86.UC_CPU_X86_COREDUO)
        uc.mem_map(0, _MEMORY)
        uc.mem_write(_LOAD, image)
        # The first 4 MiB, at their own address and from 3 GiB on.
        uc.mem_write(_ROOT, struct.pack("<4Q", *(_DIRECTORIES + 4096 * i + 1 for i in range(4))))
        for directory in (_DIRECTORIES, _DIRECTORIES + 4096 * 3):
            links = struct.pack("<2Q", _TABLE | _PRESENT_WRITABLE, (_TABLE + 4096) | 0x63)
            uc.mem_write(directory, links)
        code = range(_LOAD >> 12, ((code_end - _KERNEL_BASE) >> 12) + 1)
        leaves = (
            i << 12 | _PRESENT_WRITABLE | (0 if i in code else _NO_EXECUTE) for i in range(1024)
        )
        uc.mem_write(_TABLE, struct.pack("<1024Q", *leaves))
        uc.msr_write(_EFER, _NXE)
        uc.reg_write(x86.UC_X86_REG_CR4, 0x20)
        uc.reg_write(x86.UC_X86_REG_CR3, _ROOT)
        uc.reg_write(x86.UC_X86_REG_CR0, 0x80000011)
        self._uc = uc

    def call(self, function: int, times: int, driver: int) -> float:
        """CPU seconds of so many calls of a function, by a loop that is put at `driver`."""
        uc = self._uc
        # 1: push ecx; call eax-saved; pop ecx; dec ecx; jnz 1b
        body = b"\x51\xe8" + struct.pack("<i", function - (driver + 6)) + b"\x59\x49\x75\xf6"
        uc.mem_write(driver - _KERNEL_BASE, body)
        uc.reg_write(x86.UC_X86_REG_ESP, _KERNEL_BASE + _STACK)
        uc.reg_write(x86.UC_X86_REG_ECX, times)
        start = time.process_time()
        uc.emu_start(driver, driver + len(body))
        return time.process_time() - start


def compare_with_bare(
    about: MachineDescription,
    repetitions: int,
    *,
    scale: float = 1.0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Bareness]:
    """Straight code and stores, here and on bare Unicorn by turns."""
    rows = []
    for work, label in zip(WORKS[:4], ("alu", "copy", "sort", "calls"), strict=True):
        guest = load_work(work)
        function = guest.symbols.address(label)
        driver = guest.symbols.address("guest_main")
        head, _, rounds = work.much.rpartition("=")
        times = max(2, round(int(rounds) * scale))
        here, bare = [], []
        for repetition in range(repetitions):
            progress(f"bare Unicorn: {work.name}, {repetition + 1} of {repetitions}")
            little, _ = run_work(guest, work.little, about)
            much, _ = run_work(guest, f"{head}={times}", about)
            here.append(max(1e-9, much - little))
            machine = _Bare(guest.image, driver)
            machine.call(function, 1, driver)
            bare.append(machine.call(function, times - 1, driver))
        rows.append(Bareness(work.name, tuple(here), tuple(bare)))
    return rows
