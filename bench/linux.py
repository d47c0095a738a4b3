"""CPU time of a Linux boot here against QEMU's TCG on the same kernel in the same minute."""

import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.inputs import RomChoice
from vmm.core.errors import BadDescription, VmmError
from vmm.machine import Machine, MachineDescription

__all__ = ["QEMU", "LinuxRow", "measure_linux"]

QEMU = "qemu-system-i386"
_PATIENCE = 600


@dataclass(frozen=True, slots=True)
class LinuxRow:
    """CPU seconds of each repetition, power-on to reset; `exits` is none for QEMU."""

    name: str
    seconds: tuple[float, ...]
    exits: int | None = None

    @property
    def median(self) -> float:
        """The median of the repetitions."""
        return statistics.median(self.seconds)


def measure_linux(
    kernel: Path,
    initrd: Path,
    roms: Sequence[RomChoice],
    about: MachineDescription,
    repetitions: int,
    progress: Callable[[str], None] = lambda _: None,
) -> list[LinuxRow]:
    """Boot the kernel with each ROM here and without one in QEMU, interleaved.

    QEMU's row comes first. Raises `BadDescription` where QEMU is not installed and
    `VmmError` for a kernel that does not end by rebooting.
    """
    if shutil.which(QEMU) is None:
        raise BadDescription(f"{QEMU} is not installed (Debian: qemu-system-x86)")
    description = replace(about, guest=kernel.read_bytes(), initrd=initrd.read_bytes())
    seconds: dict[str, list[float]] = {name: [] for name in (QEMU, *(rom.name for rom in roms))}
    exits: dict[str, int] = {}
    for repetition in range(repetitions):
        progress(f"QEMU, {repetition + 1} of {repetitions}")
        seconds[QEMU].append(_qemu(kernel, initrd, description))
        for rom in roms:
            progress(f"ROM {rom.name}, {repetition + 1} of {repetitions}")
            start = time.process_time()
            run = Machine(replace(description, rom=rom.image)).run()
            seconds[rom.name].append(time.process_time() - start)
            if not run.outcome.ok:
                raise VmmError(f"{kernel.name} with ROM {rom.name}: {run.outcome}")
            exits[rom.name] = run.ledger.total
    return [LinuxRow(name, tuple(times), exits.get(name)) for name, times in seconds.items()]


def _qemu(kernel: Path, initrd: Path, about: MachineDescription) -> float:
    """User and system seconds of one boot in QEMU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.NamedTemporaryFile() as console:
        command = [
            QEMU,
            *("-accel", "tcg", "-m", f"{about.memory >> 20}", "-no-reboot", "-nodefaults"),
            *("-display", "none", "-serial", f"file:{console.name}"),
            *("-kernel", str(kernel), "-initrd", str(initrd), "-append", about.command_line),
        ]
        try:
            subprocess.run(  # noqa: S603 - the user's own kernel
                command, stdin=subprocess.DEVNULL, timeout=_PATIENCE, check=True
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise VmmError(f"{QEMU}: {error}") from None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
