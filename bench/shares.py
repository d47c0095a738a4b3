"""Where the time of a run goes: guest code, translation, engine, core, Python - sampled by perf.

perf sees the process from outside, a sample each half millisecond; a sample belongs to the
function on top. Translated guest code is what lies in no file; of the engine's library,
what makes such code is told from the rest by name.
"""

import os
import re
import select
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from bench.yardstick import Work, load_work
from vmm.machine import Machine, MachineDescription

__all__ = ["PARTS", "shares"]

PARTS = ("guest code", "translation", "engine", "core", "Python", "other")
_PERF = "perf"
_LINE = re.compile(r"^\s*([\d.]+)%\s+(\S.*?)\s+\[[.k]\]\s+(\S+)")
_TRANSLATES = re.compile(
    r"tcg_(?!qemu_tb_exec)|^tb_gen|^gen_|disas_|translat(or|e_)|liveness|_code_x86_64$|^la_|temp_"
)
_ENGINE, _CORE, _PYTHON = "libunicorn", "vmm/core", ("libpython", "python", "_ctypes", "libffi")


def shares(work: Work, about: MachineDescription) -> dict[str, float] | None:
    """The share of each of `PARTS` in the CPU time of one run; none where perf does not work."""
    if shutil.which(_PERF) is None:
        return None
    guest = load_work(work)
    machine = Machine(replace(about, guest=guest.image, command_line=work.much))
    with tempfile.TemporaryDirectory() as name:
        data = str(Path(name) / "data")
        control, acknowledge = Path(name) / "control", Path(name) / "ack"
        os.mkfifo(control)
        os.mkfifo(acknowledge)
        command = [
            *(_PERF, "record", "-q", "-F", "1999", "-o", data, "-D", "-1"),
            *("--control", f"fifo:{control},{acknowledge}", "-p", str(os.getpid())),
        ]
        with subprocess.Popen(  # noqa: S603 - perf's options
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as perf:
            # Both ends open at once, or perf has failed and nobody ever will.
            wire = os.open(control, os.O_RDWR)
            answer = os.open(acknowledge, os.O_RDWR)
            os.set_blocking(answer, False)
            os.write(wire, b"enable\n")
            if not _answered(answer, perf):
                return None
            machine.run()
            os.write(wire, b"stop\n")
            perf.wait()
            os.close(wire)
            os.close(answer)
        return _read(data)


def _answered(answer: int, perf: "subprocess.Popen[bytes]") -> bool:
    """Wait until perf says that it samples, or has ended."""
    while perf.poll() is None:
        if select.select([answer], [], [], 0.1)[0]:
            return True
    return False


def _read(data: str) -> dict[str, float]:
    report = subprocess.run(  # noqa: S603 - perf's options
        [_PERF, "report", "-i", data, "--stdio", "--no-children", "--sort", "dso,symbol"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = dict.fromkeys(PARTS, 0.0)
    for line in report.splitlines():
        match = _LINE.match(line)
        if match is not None:
            found[_part(match[2], match[3])] += float(match[1]) / 100
    return found


def _part(where: str, symbol: str) -> str:
    if where.startswith(("[JIT]", "[unknown]", "anon")):
        return "guest code"
    if _ENGINE in where:
        return "translation" if _TRANSLATES.search(symbol) else "engine"
    if ".cpython-" in where:
        return "core"
    return "Python" if where.startswith(_PYTHON) else "other"
