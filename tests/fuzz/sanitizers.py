"""Run a command on a core that was built with gcc's sanitizers.

    python tests/fuzz/sanitizers.py build/sanitize/lib pytest tests/vmm/core

The interpreter itself is not instrumented, so their run-time library is loaded first;
memory comes from malloc, whose blocks it can guard, and not from Python's own pools.
Before the command two mistakes are made on purpose: if they go unnoticed, so would others.
"""

import os
import subprocess
import sys
from pathlib import Path

LIBRARIES = ("libasan.so", "libubsan.so")
MISTAKE = """
import ctypes
from dataclasses import fields
from vmm.core.binding import EngineBinding
from vmm.core.cpu.cpustate import CpuState

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_size_t
block, whole = libc.malloc(56), libc.malloc(4096)
binding = dict.fromkeys((field.name for field in fields(EngineBinding)), 0)
binding.update(state={state}, state_size=4096, fault_address=whole)
CpuState(EngineBinding(**binding)).reg(7)
"""
"""Reads the eighth quadword from an address that is said to be that of a CPU's state."""
MISTAKES = {"heap-buffer-overflow": "block", "misaligned address": "whole + 1"}
"""What a sanitizer says, by the address that it should say it of."""


def under_sanitizers(tree: Path) -> dict[str, str]:
    """The environment for a Python that imports the packages in `tree`."""
    paths = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in LIBRARIES
    ]
    return {
        "LD_PRELOAD": " ".join(paths),
        # What Python holds at its end is no leak of the core's.
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(tree.absolute()),
        # Else the working directory, with the core as it is used, would come first.
        "PYTHONSAFEPATH": "1",
    }


def python(environment: dict[str, str], code: str) -> "subprocess.CompletedProcess[str]":
    """Run a few lines."""
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True
    )


def check(tree: Path, environment: dict[str, str]) -> None:
    """Does the core come from the tree, and do the sanitizers see what it does?"""
    core = python(environment, "from vmm.core.cpu import vcpu; print(vcpu.__file__)").stdout.strip()
    if not core.endswith(".so") or not Path(core).is_relative_to(tree.absolute()):
        sys.exit(f"the core would be {core!r}, and not one of {tree}")
    for complaint, state in MISTAKES.items():
        made = python(environment, MISTAKE.replace("{state}", state))
        if made.returncode == 0 or complaint not in made.stderr:
            sys.exit(f"no {complaint!r} where there is one: {made.stderr[-2000:]}")


def main() -> None:
    """Check the core; then become the command."""
    tree, command = Path(sys.argv[1]), sys.argv[2:]
    environment = {**os.environ, **under_sanitizers(tree)}
    check(tree, environment)
    os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
