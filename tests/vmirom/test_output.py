"""The status line: what it says while a guest runs, and when."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest

from vmirom.output import Progress
from vmm.result import SoFar

ROOT = Path(__file__).resolve().parents[2]


class FakeStatus:
    """A status line that remembers what it showed."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, text: str) -> None:
        self.shown.append(text)


class FakeMachine:
    """A machine that is as far as it is told."""

    at = SoFar(0, 0, 0)

    def so_far(self) -> SoFar:
        return self.at


class Clock:
    """The host's time."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(name="status")
def fixture_status() -> FakeStatus:
    return FakeStatus()


def test_instructions_virtual_time_and_exits_a_second(status: FakeStatus) -> None:
    clock, machine = Clock(), FakeMachine()
    tell = Progress(cast("Any", status), clock)
    tell("guest, ROM none")
    tell.follow(machine)
    machine.at = SoFar(1_000_000, 1_500_000_000, 3000)
    clock.seconds = 100.1
    tell.watch(1_000_000)
    assert status.shown == ["guest, ROM none"]
    clock.seconds = 102.0
    tell.watch(1_000_000)
    assert status.shown[-1] == (
        "guest, ROM none: 1,000,000 instructions, 1.50 virtual s, 3,000 exits, 1,500/s"
    )
    machine.at = SoFar(2_000_000, 2_500_000_000, 3100)
    clock.seconds = 103.0
    tell.watch(2_000_000)
    assert status.shown[-1].endswith("2.50 virtual s, 3,100 exits, 100/s")


def test_an_engine_that_counts_no_instructions(status: FakeStatus) -> None:
    clock, machine = Clock(), FakeMachine()
    tell = Progress(cast("Any", status), clock)
    tell("guest")
    tell.follow(machine)
    machine.at = SoFar(0, 250_000_000, 10)
    clock.seconds = 101.0
    tell.watch(0)
    assert status.shown[-1] == "guest: 0.25 virtual s, 10 exits, 10/s"


def test_each_rom_starts_afresh(status: FakeStatus) -> None:
    clock = Clock()
    tell = Progress(cast("Any", status), clock)
    for rom, exits in (("none", 5000), ("batching", 50)):
        machine = FakeMachine()
        tell(rom)
        tell.follow(machine)
        machine.at = SoFar(7, 0, exits)
        clock.seconds += 1.0
        tell.watch(7)
        assert status.shown[-1].endswith(f"{exits:,} exits, {exits:,}/s")


def test_a_terminal_sees_it_and_keeps_the_table() -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "vmirom", "run", "forkstorm", "--append", "rounds=1000000"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    )
    os.close(slave)
    seen = b""
    shown = re.compile(
        rb"forkstorm, ROM none: [\d,]+ instructions, \d+\.\d\d virtual s, [\d,]+ exits"
    )
    deadline = time.monotonic() + 60
    try:
        while not shown.search(seen):
            left = deadline - time.monotonic()
            assert left > 0, seen
            if select.select([master], [], [], left)[0]:
                seen += os.read(master, 65536)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(master)
    assert process.returncode == 130
    assert "instructions," in out
    assert "pte_write" in out
