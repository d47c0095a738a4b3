"""Running an unknown ROM at arm's length: what vmi_init and get_reloc answer."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from vmi.address import GuestVirtual
from vmi.header import GET_RELOC, VMI_INIT

__all__ = ["LOAD_ADDRESS", "NUMBERS", "Outcome", "Probe", "probe"]

LOAD_ADDRESS = GuestVirtual(0xC8000)
"""Where the image lies while it runs."""
NUMBERS = 128
"""get_reloc is asked for the calls 0 to 127."""

_WORKER = Path(__file__).with_name("probe_worker.py")
_PATIENCE = 60.0
"""Seconds of real time for everything."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call gave back, or the `problem` that ended it."""

    eax: int = 0
    edx: int = 0
    broken: tuple[str, ...] = ()
    """Rules of the calling convention that it broke, in words."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """vmi_init's outcome and get_reloc's by number, up to the first problem."""

    init: Outcome
    answers: tuple[Outcome, ...]


def _outcome(raw: dict[str, object]) -> Outcome:
    eax, edx, broken = raw.get("eax", 0), raw.get("edx", 0), raw.get("broken", [])
    if not (isinstance(eax, int) and isinstance(edx, int) and isinstance(broken, list)):
        raise TypeError(f"malformed outcome {raw!r}")
    return Outcome(eax, edx, tuple(str(rule) for rule in broken), str(raw.get("problem", "")))


def probe(image: bytes) -> Probe:
    """Run the two entries of a VMI ROM in a machine of their own.

    Whatever the image does, it happens in another process of bounded time and
    memory; if that process dies the outcome of vmi_init says so.
    """
    request = {
        "image": image.hex(),
        "load": LOAD_ADDRESS,
        "entry": VMI_INIT,
        "query": GET_RELOC,
        "numbers": NUMBERS,
    }
    try:
        # -P: the worker's folder must not shadow modules of the standard library.
        done = subprocess.run(  # noqa: S603 (our own interpreter and file)
            [sys.executable, "-P", str(_WORKER)],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(Outcome(problem=f"does not end within {_PATIENCE:.0f} s"), ())
    if done.returncode:
        problem = f"kills the emulator that runs it (status {done.returncode})"
        return Probe(Outcome(problem=problem), ())
    raw = json.loads(done.stdout)
    return Probe(_outcome(raw["init"]), tuple(_outcome(answer) for answer in raw["answers"]))
