"""Checking any VMI ROM: its headers here, its code in another process."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rombuilder.conformance.findings import Finding
from rombuilder.conformance.layout import PLACEMENTS
from rombuilder.conformance.native import native_code
from rombuilder.conformance.relocation import name_of
from rombuilder.inspect import inspect_rom
from vmi.address import RomOffset
from vmi.calls import CALLS
from vmi.header import HeaderError, RomHeader
from vmi.relocation import RelocationKind

__all__ = ["DEFAULT_SEED", "DEFAULT_STATES", "CheckedCall", "Report", "check_rom"]

DEFAULT_SEED = 1
DEFAULT_STATES = 8
"""For each call, at each load address."""

_PACKAGES = Path(__file__).resolve().parents[2]
# -P: the current folder must not shadow modules of the standard library.
_COMMAND = (sys.executable, "-P", "-m", "rombuilder.conformance.worker")
_BASE_SECONDS = 30
_SECONDS_PER_STATE = 2
"""CPU time that the worker is given: several times what an honest ROM takes."""

# What inspection finds by running the ROM is found here too, and told in more detail.
_RUN_TIME = {
    "call-broken",
    "convention",
    "get-reloc",
    "jump",
    "must-patch",
    "relocation-address",
    "relocation-kind",
    "timer-group",
    "unknown-call",
    "vmi-init",
}


@dataclass(frozen=True, slots=True)
class CheckedCall:
    """A call that the ROM offers."""

    number: int
    name: str
    kind: RelocationKind
    offset: RomOffset | None


@dataclass(slots=True)
class Report:
    """What a check found. Calls are empty for a ROM that cannot be asked for them."""

    sha256: str
    seed: int
    states: int
    loads: tuple[int, ...] = tuple(place.load for place in PLACEMENTS)
    runs: int = 0
    calls: tuple[CheckedCall, ...] = ()
    findings: list[Finding] = field(default_factory=list)

    @property
    def conformant(self) -> bool:
        """Was nothing found?"""
        return not self.findings


def check_rom(
    data: bytes,
    *,
    seed: int = DEFAULT_SEED,
    states: int = DEFAULT_STATES,
    progress: Callable[[str], None] = lambda _text: None,
) -> Report:
    """Check a ROM's headers and all its calls; the same arguments give the same report.

    Raises `HeaderError` for what is no VMI ROM at all.
    """
    report = Report(hashlib.sha256(data).hexdigest(), seed, states)
    inspection = inspect_rom(data)
    if not inspection.is_vmi:
        raise HeaderError(
            f"not a VMI ROM: signature {RomHeader.parse(data).vrom_signature:#010x} at 0x8"
        )
    for defect in inspection.defects:
        if defect.code not in _RUN_TIME:
            report.findings.append(Finding(defect.code, None, None, "", {}, defect.text))
    image = data[: inspection.header.size] or data
    _Run(report, progress).go(image)
    return report


class _Run:
    """One worker, and what it says."""

    def __init__(self, report: Report, progress: Callable[[str], None]) -> None:
        self._report = report
        self._progress = progress
        self._at = "vmi_init"
        self._done = False
        self._last_words = ""

    def go(self, image: bytes) -> None:
        report = self._report
        seconds = _BASE_SECONDS + _SECONDS_PER_STATE * report.states
        request = {
            "image": image.hex(),
            "natives": {name: code.hex() for name, code in native_code().items()},
            "seed": report.seed,
            "states": report.states,
            "cpu_seconds": seconds,
        }
        worker = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_PACKAGES)},
            text=True,
        )
        # A loaded machine gives the worker a part of each second only.
        patience = threading.Timer(4 * seconds, worker.kill)
        patience.start()
        try:
            with worker:
                self._converse(worker, json.dumps(request))
        finally:
            patience.cancel()
            worker.kill()
        if not self._done:
            self._add_death(worker.returncode)

    def _converse(self, worker: "subprocess.Popen[str]", request: str) -> None:
        if worker.stdin is None or worker.stdout is None:
            raise TypeError("the worker was started without pipes")
        try:
            worker.stdin.write(request)
            worker.stdin.close()
        except BrokenPipeError:
            return
        for line in worker.stdout:
            self._take(json.loads(line))
        if worker.stderr is not None:
            self._last_words = worker.stderr.read().strip().rpartition("\n")[2]

    def _take(self, message: dict[str, Any]) -> None:
        if "at" in message:
            text, done, total = message["at"]
            self._at = text
            self._progress(f"{done * 100 // total} %: {text}")
        elif "finding" in message:
            self._report.findings.append(Finding.from_dict(message["finding"]))
        elif "done" in message:
            self._finish(message["done"])

    def _finish(self, done: dict[str, Any]) -> None:
        self._done = True
        self._report.runs = done["runs"]
        known = {call.number for call in CALLS}
        self._report.calls = tuple(
            CheckedCall(number, name_of(number), RelocationKind[kind], offset)
            for number, (kind, offset) in (
                (int(n), answer) for n, answer in done["answers"].items()
            )
            if number in known and kind != RelocationKind.NONE.name
        )

    def _add_death(self, status: int) -> None:
        why = self._last_words or "it was killed, or took too long"
        text = f"{self._at}: ends the emulator that runs it (status {status}: {why})"
        name = self._at.split(" ", maxsplit=1)[0]
        self._report.findings.append(Finding("emulator", name, None, "", {}, text))
