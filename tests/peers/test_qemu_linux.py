"""A stock VMI Linux kernel under real QEMU and SeaBIOS, with our ROMs as option ROMs.

The kernel is not part of the project: VMI_KERNEL names a bzImage with CONFIG_VMI (2.6.21
to 2.6.36) and VMI_INITRD an initial RAM disk whose init prints WORKLOAD DONE and powers
off or halts.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from rombuilder.rom import Flavour, build_rom

QEMU = "qemu-system-i386"
KERNEL, INITRD = os.environ.get("VMI_KERNEL", ""), os.environ.get("VMI_INITRD", "")
PATIENCE = 300.0
END = "WORKLOAD DONE"

pytestmark = [
    pytest.mark.peer(QEMU),
    pytest.mark.skipif(
        not (KERNEL and INITRD),
        reason="VMI_KERNEL and VMI_INITRD are not set: they name a Linux kernel with CONFIG_VMI "
        "and its initial RAM disk",
    ),
]


def boot(folder: Path, *options: str) -> str:
    """The kernel's console, up to the end of its workload."""
    console = folder / "console.txt"
    command = [
        QEMU,
        *("-kernel", KERNEL, "-initrd", INITRD, "-append", "console=ttyS0 panic=-1"),
        *("-m", "128", "-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-accel", "tcg", "-serial", f"file:{console}"),
        *options,
    ]
    # An init that ends in a halt leaves QEMU waiting.
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False)
    return console.read_text(errors="replace")


@pytest.mark.parametrize("flavour", list(Flavour))
def test_linux_finds_the_rom_and_works_with_it(tmp_path: Path, flavour: Flavour) -> None:
    rom = tmp_path / "vmi.rom"
    rom.write_bytes(build_rom(flavour).data)
    console = boot(tmp_path, "-option-rom", str(rom))
    assert f"VMI: Found vmirom {flavour}, API version 3.0, ROM version 1.0" in console
    assert "paravirtualized kernel on vmi" in console
    assert END in console, console[-2000:]
    assert "Kernel panic" not in console
    assert "Oops" not in console


def test_without_a_rom_it_is_on_bare_hardware(tmp_path: Path) -> None:
    console = boot(tmp_path)
    assert "VMI: Found" not in console
    assert END in console, console[-2000:]
