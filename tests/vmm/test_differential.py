"""Compiled and interpreted, the core does the same."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rombuilder.guest import build_guest
from rombuilder.rom import Flavour, Rom, build_rom
from vmi.queue import HeaderField
from vmm.core import is_compiled

pytestmark = pytest.mark.skipif(not is_compiled(), reason="the core is not compiled")

WORKER = Path(__file__).with_name("differential_worker.py")
ROOT = WORKER.parents[2]
ROM_ADDRESS = 0xC0000
Job = dict[str, Any]


def start(jobs: list[Job], *, interpreted: bool) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("VMIROM_INTERPRETED", None)
    if interpreted:
        environment["VMIROM_INTERPRETED"] = "1"
    process = subprocess.Popen(
        [sys.executable, str(WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(jobs))
    process.stdin.close()
    process.stdin = None
    return process


def both(jobs: list[Job]) -> list[tuple[Job, dict[str, Any], dict[str, Any]]]:
    """Run the jobs in either way, at the same time."""
    processes = [start(jobs, interpreted=interpreted) for interpreted in (False, True)]
    answers = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
    assert [answer["compiled"] for answer in answers] == [True, False]
    return list(zip(jobs, answers[0]["results"], answers[1]["results"], strict=True))


@pytest.fixture(scope="module")
def batching() -> Rom:
    return build_rom(Flavour.BATCHING)


SMALL = {
    "forkstorm": "rounds=1 pages=24",
    "mmapstorm": "rounds=1 pages=16",
    "pagefault": "rounds=1 pages=16",
    "ctxswitch": "rounds=4 tasks=3",
}


def test_the_guests(tmp_path: Path, batching: Rom) -> None:
    roms: list[str | None] = [None]
    for name, rom in (("identity", build_rom(Flavour.IDENTITY)), ("batching", batching)):
        (tmp_path / name).write_bytes(rom.data)
        roms.append(str(tmp_path / name))
    jobs: list[Job] = []
    for guest, command_line in SMALL.items():
        image = tmp_path / guest
        image.write_bytes(build_guest(guest).data)
        policies = ("svm-shadow", "vtx-shadow") if guest == "pagefault" else ("svm-shadow",)
        jobs += [
            {
                "guest": str(image),
                "rom": rom,
                "command_line": command_line,
                "memory": 64 << 20,
                "policy": policy,
                "max_instructions": 20_000_000,
            }
            for rom in roms
            for policy in policies
        ]
    for job, compiled, interpreted in both(jobs):
        assert compiled["outcome"] == "passed", (job, compiled)
        assert compiled == interpreted, job


TABLES = 0x200000
DIRECTORIES = [0x10C000, 0x210000, 0x211000, 0x212000]
ODD_FRAMES = (0x210, 0x211, 0x3FF, 0xC0, 0xA5, 0xF0, 0x400, 0x80000, 0xE0000, 0xF0002, 0xFFFFF)
STORES = (
    "movl ${value}, {slot}",
    "movl ${value}, {slot}",
    "movl ${value}, {slot}",
    "mov ${value}, %eax\nxchg %eax, {slot}",
    "andl $0xfffffffd, {slot}",
    "orl $3, {slot}",
    "btrl $1, {slot}",
    "lock btsl $0, {slot}",
    "andb $0x9f, {slot}",
    "incl {slot}",
    "movl ${value}, {slot} + 1",
    "movl ${value}, {slot} - 2",
    "mov ${slot}, %edi\nmov ${value}, %eax\nmov $3, %ecx\ncld\nrep stosl",
    "mov {slot}, %eax\nmov ${value}, %edx\ncmpxchg %edx, {slot}",
    "mov ${value}, %eax\nxadd %eax, {slot}",
)
ACCESSES = (
    "mov {address}, %eax",
    "movl $0x12345, {address}",
    "incl {address}",
    "movb $7, {address}",
    "mov ${address}, %eax\njmp *%eax",
)
CONTROLS = (
    "mov ${directory}, %eax\nmov %eax, %cr3",
    "mov ${directory}, %eax\nmov %eax, %cr3",
    "mov %cr3, %eax\nmov %eax, %cr3",
    "mov %cr0, %eax\nxor $0x10000, %eax\nmov %eax, %cr0",
    "mov %cr0, %eax\nxor $8, %eax\nmov %eax, %cr0",
    "mov %cr4, %eax\nxor $0x10, %eax\nmov %eax, %cr4",
    "mov %cr4, %eax\nxor $0x80, %eax\nmov %eax, %cr4",
    "invlpg {address}",
    "invlpg {address}",
    "clts",
    "cpuid",
    "rdtsc",
    "wbinvd",
    "int3",
    "ud2",
    "mov ${address}, %edx\ninl (%dx), %eax",
    "mov $0x402, %edx\ninw (%dx), %ax",
)
RINGS = (
    "movl ${record}, {place}",
    "movl ${record}, {place}",
    "movl ${count}, {queue} + 0xc",
    "movl $8, {queue} + 0xc\nRING DOORBELL_FLUSH, 0",
    "RING DOORBELL_QUEUE_FULL, {record}",
    "RING DOORBELL_UPDATE_ENTRY, {slot}",
    "RING DOORBELL_UPDATE_ENTRY, {address}",
    "RING DOORBELL_INVALIDATE_PAGE, {address}",
    "RING DOORBELL_FLUSH_TLB, 1",
    "RING DOORBELL_SET_CR3, {directory}",
    "RING DOORBELL_ATTACH, {queue} + 4",
    "RING DOORBELL_ATTACH, {queue}",
    "RING {noise}, 5",
)


class Chaos:
    """A program of random events; whatever faults is given up and the next event begins."""

    def __init__(self, seed: int, queue: int | None) -> None:
        self.noise = random.Random(seed)  # noqa: S311 - tests repeat
        self.queue = queue

    def entry(self) -> int:
        frame = self.noise.choice((*range(0x200, 0x210), *range(0x300, 0x310), *ODD_FRAMES))
        flags = self.noise.getrandbits(12) & 0xE7
        if self.noise.random() < 0.8:
            flags |= 1
        if self.noise.random() < 0.85:
            flags &= ~0x80
        return frame << 12 | flags

    def index(self) -> int:
        return self.noise.choice((0, 1, 2, 3, 511, 512, 1023, self.noise.randrange(1024)))

    def slot(self) -> int:
        """Where an entry lies: in a table, or in the upper part of a directory."""
        if self.noise.random() < 0.3:
            return self.noise.choice(DIRECTORIES) + 4 * self.noise.choice((1, 2, 3, 3, 700, 1023))
        return TABLES + 0x1000 * self.noise.randrange(16) + 4 * self.index()

    def address(self) -> int:
        if self.noise.random() < 0.1:
            return self.noise.getrandbits(32)
        base = self.noise.choice((0x400000, 0x800000, 0xC00000, 0xFFC00000))
        return base + 0x1000 * self.index() + self.noise.choice((0, 4, 0x800, 0xFFD, 0xFFE))

    def record(self) -> int:
        page = self.noise.randrange(0x200, 0x212) << 12
        return self.noise.choice(
            (self.slot() | 1, page | 2, page | 3, self.noise.getrandbits(32), 4)
        )

    def descriptor(self) -> str:
        low, high = self.noise.getrandbits(32), self.noise.getrandbits(32)
        if self.noise.random() < 0.6:
            low = self.noise.choice((0x08, 0x10, 0x1B, 0x20, 0x28, 0x30)) << 16 | 0xFFF0
            high = 0x100000 | self.noise.choice((0x8E, 0x8F, 0xEE, 0x0E, 0x8C)) << 8
        if (high >> 8) & 0x1F in {5, 6, 7}:
            high ^= 0x900
        return f"movl ${low}, IDT + 0x200\nmovl ${high}, IDT + 0x204\nint $0x40"

    def event(self) -> list[str]:
        """One event's lines, now and then in ring 3."""
        rings = RINGS if self.queue else (RINGS[-1],)
        forms = self.noise.choice((STORES, STORES, ACCESSES, ACCESSES, CONTROLS, rings, None))
        if forms is None:
            return self.descriptor().splitlines()
        queue = self.queue or 0
        return (
            self.noise.choice(forms)
            .format(
                value=self.entry(),
                slot=self.slot(),
                address=self.address(),
                directory=self.noise.choice(DIRECTORIES),
                record=self.record(),
                place=queue + HeaderField.RECORDS + 4 * self.noise.randrange(8),
                count=self.noise.choice((0, 1, 4, 8, 130, -1)),
                queue=queue,
                noise=self.noise.getrandbits(32),
            )
            .splitlines()
        )

    def program(self, events: int) -> str:
        body = []
        for number in range(events):
            lines = self.event()
            body.append(f"movl $event_{number}, 0x107000")
            if lines[0].startswith(("movl", "incl")) and self.noise.random() < 0.2:
                lines = [f"USER_MODE user_{number}", f"user_{number}:", *lines, "int $0x81"]
            body += [*lines, f"event_{number}:"]
        first = [f"movl $TABLE | OPEN, {address}" for address in DIRECTORIES[1:]]
        attach = [f"RING DOORBELL_ATTACH, {self.queue}"] if self.queue else []
        return "\n".join(
            [
                "start:",
                # All directories map the first 4 MiB alike.
                *first,
                "PAGING",
                *attach,
                *body,
                "FINISH 0",
                "next: mov $STACK_TOP, %esp",
                "mov $KERNEL_DATA, %eax",
                "mov %ax, %ss",
                "mov $USER_DATA, %eax",
                "mov %ax, %ds",
                "mov %ax, %es",
                "jmp *0x107000\n",
            ]
        )


HANDLED = (0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 0x81)


def test_random_programs(tmp_path: Path, batching: Rom, tiny_guest: Callable[..., Any]) -> None:
    rom = tmp_path / "rom"
    rom.write_bytes(batching.data)
    queue = ROM_ADDRESS + batching.data.index(b"VMIq")
    jobs: list[Job] = []
    for seed in range(32):
        program = Chaos(seed, queue if seed % 2 else None).program(40)
        image = tmp_path / f"guest{seed}"
        image.write_bytes(tiny_guest(program, handlers=dict.fromkeys(HANDLED, "next")).data)
        jobs.append(
            {
                "guest": str(image),
                "rom": str(rom) if seed % 2 else None,
                "memory": 4 << 20,
                "policy": ("svm-shadow", "vtx-shadow")[seed // 2 % 2],
                # Wild jumps may run through any amount of zeros.
                "max_instructions": 30_000,
            }
        )
    exits = 0
    outcomes: dict[str, int] = {}
    for job, compiled, interpreted in both(jobs):
        assert compiled == interpreted, job
        assert not compiled["outcome"].startswith("engine_failure"), compiled["outcome"]
        exits += sum(sum(pair) for pair in compiled["exits"].values())
        exits += sum(compiled["events"].values())
        kind = compiled["outcome"].split(":")[0]
        outcomes[kind] = outcomes.get(kind, 0) + 1
    # Enough of them went far enough for this to mean something.
    assert exits > 800, (exits, outcomes)
    assert outcomes.get("passed", 0) >= len(jobs) // 4, (exits, outcomes)
