"""Rules between the ROM and the core, each with a small guest that ends as STALE once it is broken.

A rule is broken by a mistake in the ROM's source, or by taking it out of the interpreted core.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rombuilder.rom import Rom
from vmi.doorbell import Doorbell
from vmm.core.event import Reason
from vmm.machine import Run

WORKER = Path(__file__).with_name("rules_worker.py")
ROOT = WORKER.parents[2]
ROM_ADDRESS = 0xC0000
STALE, SEEN = 0x51, 0x52
"""What the guests end with: a translation outlived its time, or was not cached at all."""

SYMBOLS = """
	.set READ_ONLY, OPEN & ~2
	.set HERE, UPDATE_PT | UPDATE_CURRENT_AS
"""

ENDINGS = """
stale:
	FINISH STALE
passed:
	FINISH 0
"""


def calls(functions: str = "queue", entries: str = "0") -> str:
    """Macros that call a ROM whose functions have that prefix.

    `entries` is where page-table entries lie above their physical addresses.
    """
    return (
        SYMBOLS
        + f"""
	.macro VMI function
	mov $ROM_\\function, %esi
	call *%esi
	.endm

	.macro SET_PXE value, entry, flags
	mov $\\value, %eax
	mov ${entries} + \\entry, %edx
	mov $\\flags, %ecx
	VMI {functions}_SetPxE
	.endm

	.macro INVALIDATE address
	mov $\\address, %eax
	VMI queue_InvalPage
	.endm

	.macro SWITCH directory
	mov $\\directory, %eax
	VMI {functions}_SetCR3
	.endm

# Reading \\address finds \\content, or the run ends.
	.macro FIND content, address, otherwise=stale
	cmpl $\\content, \\address
	jne \\otherwise
	.endm

# Memory from `base` up, 4 MiB, is linear.
	.macro LINEAR base=0
	push $0
	xor %eax, %eax
	mov $\\base, %edx
	mov $1024, %ecx
	VMI {functions}_SetLinearMapping
	add $4, %esp
	.endm
"""
    )


def with_symbols(rom: Rom, source: str, above: int = 0) -> str:
    """A guest's source that knows where this ROM's functions are, `above` their places."""
    symbols = {f"ROM_{name}": above + ROM_ADDRESS + at for name, at in rom.symbols.items()}
    symbols.update(STALE=STALE, SEEN=SEEN)
    return "".join(f"\t.set {name}, {value:#x}\n" for name, value in symbols.items()) + source


@dataclass(frozen=True)
class Mistake:
    """A change of the ROM's source that breaks a rule."""

    source: str
    old: str
    new: str


@dataclass(frozen=True)
class Scenario:
    """A guest, and what breaks it: mistakes in the ROM, rules of the core."""

    source: str
    mistakes: tuple[Mistake, ...] = ()
    rules: tuple[str, ...] = ()
    handlers: Mapping[int, str] = field(default_factory=dict)
    ends: int | str = STALE
    """How it does then: a check of its own, or how the outcome begins."""

    @property
    def ending(self) -> str:
        """The outcome once its rule is broken, or its beginning."""
        if isinstance(self.ends, str):
            return self.ends
        return f"failed: the guest's check {self.ends} failed"


def rings(run: Run, function: Doorbell) -> int:
    """How often a function of the doorbell was called."""
    places = [place for place in run.ledger.places if place.reason is Reason.HYPERCALL]
    return sum(place.count for place in places if place.detail == function.name)


def not_noticed(
    folder: Path,
    rom: Rom,
    scenarios: Mapping[str, Scenario],
    files: Callable[[Scenario], Mapping[str, bytes]],
    **about: str,
) -> list[str]:
    """Scenarios that do not end as they should with one of their rules taken out of the core.

    `files` makes a guest's images, `about` is more of a job for rules_worker.py. All run in
    one process, which is the interpreted core's: it takes time to start.
    """
    (folder / "rom").write_bytes(rom.data)
    jobs: list[dict[str, str]] = []
    expected: list[tuple[str, str]] = []
    for number, (name, scenario) in enumerate(scenarios.items()):
        paths = {"rom": str(folder / "rom")}
        for kind, data in files(scenario).items():
            path = folder / f"{number}.{kind}"
            path.write_bytes(data)
            paths[kind] = str(path)
        for rule in scenario.rules:
            jobs.append({**paths, **about, "rule": rule})
            expected.append((f"{name}, unless {rule}", scenario.ending))
    return [
        f"{what}: {outcome}"
        for (what, due), outcome in zip(expected, _outcomes(jobs), strict=True)
        if not outcome.startswith(due)
    ]


def _outcomes(jobs: Sequence[Mapping[str, str]]) -> list[str]:
    answer = subprocess.run(
        [sys.executable, str(WORKER)],
        input=json.dumps(jobs),
        env={**os.environ, "PYTHONPATH": str(ROOT), "VMIROM_INTERPRETED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(answer.stdout)
    return found
