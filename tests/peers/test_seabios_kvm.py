"""SeaBIOS on our own machine under KVM: it finds the ROM's PCI device and runs its entry.

Firmware that nobody here has written reads configuration space, maps the ROM's BAR, copies the
image, calls it, and write-protects the area. Some seconds, since unpaged code may be interpreted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rombuilder.rom import Flavour, build_rom
from vmm.core.outcome import OutcomeKind
from vmm.engine.kvm.device import Kvm, KvmUnavailable
from vmm.engine.kvm.hostlimits import HostCannot
from vmm.kvm_machine import KvmMachine
from vmm.machine import MachineDescription

BIOS = Path("/usr/share/seabios/bios-256k.bin")
ROM_AREA = 0xC0000
PROTECTED = 3

pytestmark = pytest.mark.peer("/usr/share/seabios")


def test_it_runs_our_option_rom() -> None:
    rom = build_rom(Flavour.BATCHING).data
    about = MachineDescription(
        BIOS.read_bytes(),
        rom,
        memory=16 << 20,
        seconds=120,
        until="enter handle_19",
    )
    try:
        Kvm().close()
        machine = KvmMachine(about)
    except (KvmUnavailable, HostCannot) as reason:
        pytest.skip(str(reason))
    run = machine.run()
    assert run.outcome.kind is OutcomeKind.PASSED, run.console
    assert "SeaBIOS (version" in run.console
    assert "Running option rom at c000:0003" in run.console
    # What its entry prints goes through INT 10h, which nobody serves without a VGA; what it
    # leaves is the image as firmware placed it, size and all.
    kept = machine.ram[ROM_AREA + 2] * 512
    assert machine.ram[ROM_AREA : ROM_AREA + 2] == b"\x55\xaa"
    assert machine.ram[ROM_AREA + 8 : ROM_AREA + 12] == b"cVmi"
    assert 0 < kept <= len(rom)
    assert run.ledger.by_reason
    frames = machine.memory.kinds(0, 1024)
    assert all(frames[frame] == PROTECTED for frame in range(0xC0, (ROM_AREA + kept) >> 12))
