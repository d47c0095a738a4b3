"""QEMU's TCG on the same kernel: the yardstick for CPU time. It counts no exits."""

import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from vmm.core.errors import BadDescription, VmmError
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.machine import MachineDescription

__all__ = ["QEMU", "QEMU_ENGINE", "boot_in_qemu", "cpu_seconds", "require_qemu", "run_in_qemu"]

QEMU = "qemu-system-i386"
QEMU_ENGINE = "qemu-tcg"
_PASSED = 1
"""isa-debug-exit makes an exit status of twice the result, and 1."""
_PATIENCE = 600
"""Seconds after which a boot has failed."""


def require_qemu() -> None:
    """Raise `BadDescription` where QEMU is not installed."""
    if shutil.which(QEMU) is None:
        raise BadDescription(f"{QEMU} is not installed (Debian: qemu-system-x86)")


def boot_in_qemu(about: MachineDescription) -> tuple[Outcome, float, float]:
    """Power on to reset: how it ended, user and system seconds, and seconds on the clock.

    Raises `BadDescription` where QEMU is not installed and `VmmError` when it fails.
    """
    require_qemu()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kernel").write_bytes(about.guest)
        initrd = []
        if about.initrd is not None:
            (folder / "initrd").write_bytes(about.initrd)
            initrd = ["-initrd", str(folder / "initrd")]
        command = [
            QEMU,
            *("-accel", "tcg", "-m", f"{about.memory >> 20}", "-no-reboot", "-nodefaults"),
            *("-display", "none", "-serial", f"file:{folder / 'console'}"),
            *("-kernel", str(folder / "kernel"), *initrd, "-append", about.command_line),
        ]
        return _measure(command)


def run_in_qemu(image: Path, command_line: str, memory: int) -> float:
    """CPU seconds of a bare guest that ends by the exit port; raises as `boot_in_qemu`."""
    require_qemu()
    command = [
        QEMU,
        *("-accel", "tcg", "-m", f"{memory >> 20}", "-no-reboot", "-nodefaults"),
        *("-no-user-config", "-display", "none", "-kernel", str(image), "-append", command_line),
        *("-device", "isa-debug-exit,iobase=0x501,iosize=4"),
        *("-device", "isa-debugcon,iobase=0x402,chardev=c", "-chardev", "null,id=c"),
    ]
    return _measure(command, _PASSED)[1]


def cpu_seconds(command: list[str]) -> float:
    """User and system seconds of a command, whose output is thrown away.

    Raises `VmmError` when it fails.
    """
    return _measure(command, quiet=True)[1]


def _measure(
    command: list[str], expected: int = 0, *, quiet: bool = False
) -> tuple[Outcome, float, float]:
    """Run a program; wait4 tells the CPU time of this child alone."""
    start = time.perf_counter()
    try:
        child = subprocess.Popen(  # noqa: S603 - QEMU's options, or our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if quiet else None,
        )
    except OSError as error:
        raise VmmError(f"{command[0]}: {error}") from None
    timer = threading.Timer(_PATIENCE, child.kill)
    timer.start()
    try:
        _, status, usage = os.wait4(child.pid, 0)
    except BaseException:
        child.kill()
        child.wait()
        raise
    finally:
        timer.cancel()
    wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != expected:
        raise VmmError(f"{Path(command[0]).name}: it ended with status {child.returncode}")
    return Outcome(OutcomeKind.REBOOT), usage.ru_utime + usage.ru_stime, wall
