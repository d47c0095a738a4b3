"""The guest `ideread` on whole machines: what the ROM's own IDE channels save, and where."""

from dataclasses import replace
from functools import partial

import pytest

from bench.inputs import load_guest, load_rom, machine_with
from vmm.core.event import Reason
from vmm.machine import Machine, MachineDescription, Run


def read_sectors(rom: str, sectors: int, cpus: int = 1) -> Run:
    """A run of `ideread`, which has read so many sectors right."""
    about = replace(MachineDescription(b""), command_line=f"sectors={sectors}", cpus=cpus)
    run = Machine(machine_with(about, load_guest("ideread"), load_rom(rom))).run()
    assert run.outcome.ok, run.outcome
    return run


def io_and_hypercalls(run: Run) -> int:
    counts = run.ledger.by_reason
    return sum(counts[name].count for name in (Reason.IO, Reason.HYPERCALL) if name in counts)


@pytest.mark.parametrize("sectors", [256, 2048])
def test_port_calls_cost_under_two_percent(sectors: int) -> None:
    plain, called = (read_sectors(rom, sectors) for rom in ("none", "batching"))
    assert plain.console.splitlines()[-1] == called.console.splitlines()[-1]
    assert io_and_hypercalls(called) < 0.02 * io_and_hypercalls(plain)


def test_a_machine_with_several_processors_keeps_its_channels() -> None:
    read = partial(read_sectors, "batching", 16)
    assert read(cpus=1).ledger.by_reason[Reason.IO].count < 200
    assert read(cpus=2).ledger.by_reason[Reason.IO].count > 16 * 256
