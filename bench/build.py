"""What ran it: the version, a hash over the code that counts, and the host."""

import functools
import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

import vmi
import vmm
from bench.record import Build
from vmm.core import is_compiled

__all__ = ["this_build"]

_CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def this_build() -> Build:
    """The code and the host of this process."""
    return Build(
        version=metadata.version("vmirom"),
        code=_code(),
        core="compiled" if is_compiled() else "interpreted",
        host={
            "cpu": _processor(),
            "cpus": str(os.cpu_count()),
            "system": f"{platform.system()} {platform.release()}",
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
    )


def _code() -> str:
    """Hash what counts depend on beside guest and ROM, whose hashes stand in every row."""
    digest = hashlib.sha256(f"unicorn {metadata.version('unicorn')}\n".encode())
    for package in (vmi, vmm):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.p[yx]*")):
            if path.suffix in {".py", ".pxd"}:
                name = path.relative_to(root.parent).as_posix()
                digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _processor() -> str:
    """The processor's name, as Linux tells it."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
