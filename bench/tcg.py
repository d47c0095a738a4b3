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

__all__ = ["QEMU", "QEMU_ENGINE", "boot_in_qemu", "require_qemu"]

QEMU = "qemu-system-i386"
QEMU_ENGINE = "qemu-tcg"
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


def _measure(command: list[str]) -> tuple[Outcome, float, float]:
    """Run a program; wait4 tells the CPU time of this child alone."""
    start = time.perf_counter()
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - QEMU's options
    except OSError as error:
        raise VmmError(f"{QEMU}: {error}") from None
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
    if child.returncode:
        raise VmmError(f"{QEMU}: it ended with status {child.returncode}")
    return Outcome(OutcomeKind.REBOOT), usage.ru_utime + usage.ru_stime, wall
