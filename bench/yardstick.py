"""How fast guests run here and in QEMU's TCG: one kind of work at a time, as ratios.

Each work runs here and in QEMU by turns, both a few rounds and many of them; what counts is the
difference, so that neither side's start-up does. The result is a ratio of CPU time of neighbours
in time: a host that slows down slows both.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from bench.inputs import Guest, load_guest, load_rom
from bench.tcg import boot_in_qemu, cpu_seconds, run_in_qemu
from vmm.core.errors import VmmError
from vmm.core.outcome import OutcomeKind
from vmm.engines import EngineName, create_machine
from vmm.machine import Machine, MachineDescription, Run

__all__ = [
    "WORKS",
    "Pace",
    "Work",
    "interval",
    "load_work",
    "measure_boot",
    "measure_pace",
    "run_work",
]

_SPEED = resources.files("bench") / "workloads" / "speed.S"


@dataclass(frozen=True, slots=True)
class Work:
    """A guest with two command lines: little to do, and much.

    `needs` is the ability, as `vmirom engines` has it, without which KVM cannot run it.
    """

    name: str
    guest: str
    little: str
    much: str
    needs: str = "paging_32"


_LEAST = 0.002
"""CPU seconds below which a difference of two runs says nothing."""
_LINE = "console=ttyS0 panic=1"


def _speed(name: str, number: int, rounds: int) -> Work:
    return Work(name, "speed", f"work={number} rounds=1", f"work={number} rounds={rounds}")


WORKS = (
    _speed("ALU", 1, 150000),
    _speed("memory copy", 2, 40000),
    _speed("sort", 3, 12000),
    _speed("call and return", 4, 60000),
    _speed("software interrupts", 5, 4000),
    Work("system calls", "ctxswitch", "rounds=1", "rounds=20000"),
    Work("page faults", "pagefault", "rounds=1", "rounds=1000"),
    Work("fork storm", "forkstorm", "rounds=1", "rounds=2000"),
    _speed("port reads", 6, 3000),
    _speed("CPUID", 7, 6000),
    Work("ports, unpaged", "portstorm", "rounds=1", "rounds=2000", "unpaged_32"),
)
"""What is measured, in the order of its table."""


@dataclass(frozen=True, slots=True)
class Pace:
    """CPU seconds of a work here and in QEMU, without start-up, a repetition each.

    `instructions` and `exits` (by reason in `reasons`) are those of the difference too, and
    `kvm` the CPU seconds on KVM, where that can run it.
    """

    work: str
    here: tuple[float, ...]
    qemu: tuple[float, ...]
    instructions: int
    exits: int
    reasons: dict[str, int]
    kvm: tuple[float, ...] = ()

    @property
    def kvm_ratios(self) -> list[float]:
        """Here to KVM, a repetition each."""
        pairs = zip(self.here, self.kvm, strict=False)
        return [here / kvm for here, kvm in pairs if min(here, kvm) >= _LEAST]

    @property
    def ratios(self) -> list[float]:
        """Here to QEMU, a repetition each, but for those too short to measure."""
        pairs = zip(self.here, self.qemu, strict=True)
        return [here / qemu for here, qemu in pairs if min(here, qemu) >= _LEAST]

    @property
    def per_second(self) -> float:
        """Instructions a second here, median."""
        return self.instructions / statistics.median(self.here)

    @property
    def exits_per_second(self) -> float:
        """Exits a second here, median."""
        return self.exits / statistics.median(self.here)


def interval(values: Sequence[float]) -> tuple[float, float, float] | None:
    """The median, the least and the greatest value; none of no values."""
    if not values:
        return None
    return statistics.median(values), min(values), max(values)


def load_work(work: Work) -> Guest:
    """The guest that does a work."""
    if work.guest != "speed":
        return load_guest(work.guest)
    with resources.as_file(_SPEED) as path:
        return load_guest(str(path))


def run_work(
    guest: Guest,
    line: str,
    about: MachineDescription,
    engine: EngineName = EngineName.UNICORN,
) -> tuple[float, Run]:
    """CPU seconds of one run and what it counted; raises `VmmError` when the guest fails."""
    machine = create_machine(engine, replace(about, guest=guest.image, command_line=line))
    start = time.process_time()
    run = machine.run()
    seconds = time.process_time() - start
    if run.outcome.kind is not OutcomeKind.PASSED:
        raise VmmError(f"guest {guest.name} {line!r}: {run.outcome}")
    return seconds, run


def measure_pace(
    works: Sequence[Work],
    about: MachineDescription,
    repetitions: int,
    *,
    scale: float = 1.0,
    kvm: Collection[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> list[Pace]:
    """Every work, here and in QEMU, by turns. `scale` multiplies the rounds of "much".

    KVM takes its turns in works that need no more than these abilities of it.
    Raises `BadDescription` where QEMU is not installed and `VmmError` when a guest fails.
    """
    paces = []
    with tempfile.TemporaryDirectory() as folder:
        for work in works:
            guest = load_work(work)
            image = Path(folder) / "guest"
            image.write_bytes(guest.image)
            head, _, rounds = work.much.rpartition("=")
            much = f"{head}={max(2, round(int(rounds) * scale))}"
            here, qemu, on_kvm = [], [], []
            for repetition in range(repetitions):
                progress(f"{work.name}, {repetition + 1} of {repetitions}")
                little, small = run_work(guest, work.little, about)
                long, large = run_work(guest, much, about)
                here.append(max(1e-9, long - little))
                idle = run_in_qemu(image, work.little, about.memory)
                qemu.append(max(1e-9, run_in_qemu(image, much, about.memory) - idle))
                if work.needs in kvm:
                    idle = run_work(guest, work.little, about, EngineName.KVM)[0]
                    on_kvm.append(run_work(guest, much, about, EngineName.KVM)[0] - idle)
            before = {k: v.count for k, v in small.ledger.by_reason.items()}
            reasons = {
                reason.value: entry.count - before.get(reason, 0)
                for reason, entry in large.ledger.by_reason.items()
                if entry.count > before.get(reason, 0)
            }
            paces.append(
                Pace(
                    work.name,
                    tuple(here),
                    tuple(qemu),
                    large.instructions - small.instructions,
                    large.ledger.total - small.ledger.total,
                    reasons,
                    tuple(on_kvm),
                )
            )
    return paces


def measure_boot(
    kernel: Path,
    initrd: Path,
    rom: str,
    about: MachineDescription,
    repetitions: int,
    progress: Callable[[str], None] = lambda _: None,
    *,
    append: str = "",
) -> Pace:
    """A Linux boot, power-on to reset, as a user starts it: whole processes, start-up and all.

    `rom` is as in `vmirom run`, `append` more words for the kernel. Raises as `boot_in_qemu`.
    """
    line = f"{_LINE} {append}".strip()
    described = replace(
        about, guest=kernel.read_bytes(), initrd=initrd.read_bytes(), command_line=line
    )
    command = [
        *(sys.executable, "-m", "vmirom", "run", str(kernel), "--initrd", str(initrd)),
        *("--append", line, "--rom", rom, "--policy", about.policy.name),
        *("--memory", f"{about.memory >> 20}M"),
    ]
    here, qemu = [], []
    for repetition in range(repetitions):
        progress(f"Linux with ROM {rom}, {repetition + 1} of {repetitions}")
        here.append(cpu_seconds(command))
        qemu.append(boot_in_qemu(described)[1])
    run = Machine(replace(described, rom=load_rom(rom).image)).run()
    reasons = {reason.value: entry.count for reason, entry in run.ledger.by_reason.items()}
    name = f"Linux, ROM {rom}"
    return Pace(name, tuple(here), tuple(qemu), run.instructions, run.ledger.total, reasons)
