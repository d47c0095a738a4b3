"""Native port accesses that the ROM answers: the same results, and what they cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.inputs import load_guest, load_rom, machine_with
from rombuilder.rom import Flavour
from vmm.core.errors import BadDescription
from vmm.core.event import Reason
from vmm.core.policy import policy_named
from vmm.engines import EngineName, create_machine
from vmm.machine import Machine, MachineDescription, Run

ROOT = Path(__file__).parents[2]
ODD_PORTS = str(Path(__file__).with_name("odd_ports.S"))
NATIVE, PADDED = 2, 3


def start(
    guest: str,
    *,
    reflect: bool,
    line: str = "",
    rom: str = "batching",
    cpus: int = 1,
    policy: str = "svm-shadow",
) -> Run:
    about = replace(
        MachineDescription(b""),
        command_line=line,
        reflect=reflect,
        cpus=cpus,
        policy=policy_named(policy),
    )
    run = Machine(machine_with(about, load_guest(guest), load_rom(rom))).run()
    assert run.outcome.ok, run.outcome
    return run


def count(run: Run, reason: Reason) -> int:
    row = run.ledger.by_reason.get(reason)
    return 0 if row is None else row.count


@pytest.mark.parametrize("policy", ["svm-shadow", "vtx-shadow", "npt"])
def test_accesses_of_every_form_give_what_the_device_gives(policy: str) -> None:
    plain, reflected = (start(ODD_PORTS, reflect=on, policy=policy) for on in (False, True))
    assert plain.console == reflected.console
    assert plain.console.count("777777776666666688888888") == 3
    assert count(plain, Reason.REFLECT) == 0
    # What cannot be reflected goes to the device, the rest to the ROM.
    assert count(reflected, Reason.REFLECT) > 50
    assert count(reflected, Reason.IO) < count(plain, Reason.IO) / 2
    assert [line.partition(" refused: ")[2] for line in reflected.complaints] == [
        "queue address 0xfffffffc is not mapped",
        "the table at 0x10d000 does not lie in the ROM",
        "offset 0xeb48 does not lie in the ROM",
    ]


@pytest.mark.parametrize("ports", [NATIVE, PADDED])
def test_a_native_driver_reads_through_the_rom(ports: int) -> None:
    line = f"sectors=256 ports={ports}"
    plain, reflected = (start("ideread", reflect=on, line=line) for on in (False, True))
    assert plain.console == reflected.console
    row = reflected.ledger.by_reason[Reason.REFLECT]
    assert row.heavy == 0
    assert count(reflected, Reason.IO) + row.count < 0.01 * count(plain, Reason.IO)
    # One command for 256 sectors, in blocks of 16: each a status, and a string.
    assert reflected.reflection is not None
    if ports == NATIVE:
        assert row.count >= 2 * 16
        assert reflected.reflection.patched == 0
        assert reflected.reflection.sites > 4
    else:
        # Each place costs the access that finds it, and if there is another the one that patches.
        assert 3 < reflected.reflection.patched == row.count < 16


def test_nothing_is_reflected_unless_asked_or_to_a_rom_that_cannot() -> None:
    line = f"sectors=16 ports={NATIVE}"
    runs = [
        start("ideread", reflect=False, line=line),
        start("ideread", reflect=True, line=line, rom="none"),
        start("ideread", reflect=True, line=line, rom=Flavour.IDENTITY.value),
        start("ideread", reflect=True, line=line, cpus=2),
    ]
    assert {count(run, Reason.REFLECT) for run in runs} == {0}
    assert {count(run, Reason.IO) > 16 * 256 for run in runs} == {True}


def test_two_drives_stay_with_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ROM is refused the channel at the first access; the instruction is made after all."""
    monkeypatch.setattr("vmm.devices.ideinrom.IdeInRom.lend", lambda _self, _block: False)
    run = start("ideread", reflect=True, line=f"sectors=16 ports={NATIVE}")
    plain = start("ideread", reflect=False, line=f"sectors=16 ports={NATIVE}")
    assert run.console == plain.console
    assert count(run, Reason.REFLECT) == 1
    assert count(run, Reason.IO) == count(plain, Reason.IO)
    assert [line.partition("refused: ")[2] for line in run.complaints] == [
        "channel 0 cannot be handed over"
    ]


def test_interpreted_counts_are_the_same() -> None:
    arguments = ("run", ODD_PORTS, "--rom", "batching", "--reflect", "--json")

    def printed(**more: str) -> dict[str, object]:
        process = subprocess.run(
            [sys.executable, "-m", "vmirom", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), **more},
            capture_output=True,
            check=True,
        )
        answer: dict[str, object] = json.loads(process.stdout)
        return answer

    assert printed() == printed(VMIROM_INTERPRETED="1")


def test_the_kvm_engine_cannot() -> None:
    about = replace(MachineDescription(b""), reflect=True)
    about = machine_with(about, load_guest("ideread"), load_rom("batching"))
    with pytest.raises(BadDescription, match="engine kvm"):
        create_machine(EngineName.KVM, about, None)
