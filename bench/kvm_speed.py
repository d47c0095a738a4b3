"""Port exits a second on KVM: the whole engine against a minimal loop in C, in the same run.

The loop enters the guest again and does nothing else; the engine decodes, looks up the
instruction's place, counts, asks the port's device, and looks at interrupts and timers.
"""

import shutil
import statistics
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vmm.core.errors import BadDescription, VmmError
from vmm.engine.kvm.device import Kvm
from vmm.kvm_machine import KvmMachine
from vmm.machine import MachineDescription

__all__ = ["KvmSpeed", "measure_kvm"]

_SOURCE = Path(__file__).with_name("kvmloop.c")
_LOAD = 0x100000
_HEADER = 8 * 4
_MAGIC, _HAS_ADDRESSES = 0x1BADB002, 0x10000
_MEMORY = 4 << 20
_PATIENCE = 300


@dataclass(frozen=True, slots=True)
class KvmSpeed:
    """Nanoseconds of each repetition for `exits` port exits, interleaved."""

    exits: int
    c_loop: tuple[int, ...]
    engine: tuple[int, ...]

    @property
    def ratio(self) -> float:
        """How many times as long the engine takes, by the medians."""
        return statistics.median(self.engine) / statistics.median(self.c_loop)

    @staticmethod
    def rate(exits: int, nanoseconds: tuple[int, ...]) -> float:
        """Exits a second, by the median."""
        return exits / statistics.median(nanoseconds) * 1e9


def measure_kvm(
    exits: int, repetitions: int, progress: Callable[[str], None] = lambda _: None
) -> KvmSpeed:
    """Time `exits` port exits by both, `repetitions` times.

    Raises `KvmUnavailable` without KVM, `BadDescription` without gcc, and `VmmError` when
    either does not make all its exits.
    """
    Kvm().close()
    if shutil.which("gcc") is None:
        raise BadDescription("the loop to compare with needs gcc, which is not installed")
    c_loop, engine = [], []
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "kvmloop")
        _compile(program)
        for repetition in range(repetitions):
            progress(f"C loop, {repetition + 1} of {repetitions}")
            c_loop.append(_loop(program, exits))
            progress(f"engine, {repetition + 1} of {repetitions}")
            engine.append(_engine(exits))
    return KvmSpeed(exits, tuple(c_loop), tuple(engine))


def _compile(program: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own source
        ["gcc", "-O2", "-o", str(program), str(_SOURCE)],  # noqa: S607 - the user's gcc
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BadDescription(f"gcc cannot compile the loop to compare with: {done.stderr.strip()}")


def _loop(program: Path, exits: int) -> int:
    done = subprocess.run(  # noqa: S603 - just compiled
        [str(program), str(exits)], capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    if done.returncode:
        raise VmmError(f"C loop: {done.stderr.strip()}")
    return int(done.stdout)


def _engine(exits: int) -> int:
    machine = KvmMachine(MachineDescription(_guest(exits), memory=_MEMORY))
    started = machine.clock.now()
    run = machine.run()
    counted = run.ledger.heavy - 1
    if not run.outcome.ok or counted != exits:
        raise VmmError(f"engine kvm: {counted} of {exits} exits, {run.outcome}")
    return run.virtual_ns - started


def _guest(exits: int) -> bytes:
    """A Multiboot image with the same loop, which ends at the exit port."""
    code = (
        b"\xb9" + struct.pack("<I", exits)  # mov $exits, %ecx
        + b"\xe6\x80\x49\x75\xfb"  # 1: outb %al, $0x80; dec %ecx; jnz 1b
        + b"\x31\xc0\x66\xba\x01\x05\xef\xf4"  # xor %eax, %eax; mov $0x501, %dx; outl; hlt
    )  # fmt: skip
    end = _LOAD + _HEADER + len(code)
    checksum = -(_MAGIC + _HAS_ADDRESSES) & 0xFFFFFFFF
    header = struct.pack(
        "<8I", _MAGIC, _HAS_ADDRESSES, checksum, _LOAD, _LOAD, end, end, _LOAD + _HEADER
    )
    return header + code
