"""What a machine is made from: a plain description."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from vmi.address import PAGE_SIZE, GuestPhysical
from vmm.core.errors import BadDescription
from vmm.core.policy import POLICIES, Policy
from vmm.devices.disk import Writes
from vmm.devices.pluggable import Plug
from vmm.filters.program import FilterProgram
from vmm.firmware.post import ROM_AREA_START
from vmm.layout import MOST_MEMORY

__all__ = [
    "DEFAULT_MAX_INSTRUCTIONS",
    "DEFAULT_MEMORY",
    "MachineDescription",
    "check_memory",
    "open_disk",
]

DEFAULT_MEMORY = 64 << 20
"""Bytes of RAM."""
LEAST_MEMORY = 4 << 20
DEFAULT_MAX_INSTRUCTIONS = 20_000_000_000
"""After so many the run ends, as `LIMIT`."""


@dataclass(frozen=True, slots=True)
class MachineDescription:
    """Everything that a run depends on; equal descriptions give equal counts.

    `guest` is a Multiboot image, a Linux bzImage or a vmlinux, the latter two with
    an `initrd`; `rom` a VMI ROM image or none, `memory` is in bytes, `rom_address`
    where firmware puts the ROM. `backings` are names and sizes, in bytes, of memory that the guest
    sees only where `set_memory` shows it. `disk` is an image for the first IDE drive, in a
    file or as it is; what the guest writes to it is forgotten, unless `disk_writes` says
    otherwise. The run is cut into phases where the console first prints one of `marks`.
    `filters` see the reads of their ports before the devices do; with `reflect` a ROM that
    can answers native accesses to the IDE channels' ports in the device's place. `devices`
    are plugged in besides those of every PC. `check_shadow` compares every shadow entry
    with the guest's tables at each exit, which is slow. `apic` shows the guest its local
    APIC, which is hidden otherwise, an I/O APIC, and the tables that name them;
    `ioapic_process` lets the I/O APIC live in a process of its own. Of `cpus` virtual CPUs
    the first one starts the guest; with more than one they have APICs in any case, and with
    `threads` each runs in a host thread of its own, in parallel: counts do not repeat then.
    `seconds` of the host's time, where given, end the run, and so does a line of the
    console with `until` in it.
    """

    guest: bytes
    rom: bytes | None = None
    command_line: str = ""
    initrd: bytes | None = None
    disk: Path | bytes | None = None
    disk_writes: Writes = Writes.OVERLAY
    memory: int = DEFAULT_MEMORY
    backings: tuple[tuple[str, int], ...] = ()
    policy: Policy = POLICIES[0]
    rom_address: GuestPhysical = ROM_AREA_START
    max_instructions: int = DEFAULT_MAX_INSTRUCTIONS
    marks: tuple[str, ...] = ()
    filters: tuple[FilterProgram, ...] = ()
    reflect: bool = False
    devices: tuple[Plug, ...] = ()
    check_shadow: bool = False
    apic: bool = False
    ioapic_process: bool = False
    cpus: int = 1
    threads: bool = False
    seconds: float | None = None
    until: str = ""


def check_memory(about: MachineDescription) -> None:
    """Raise `BadDescription` unless the memory is of a size that a machine can have."""
    if about.memory % PAGE_SIZE or not LEAST_MEMORY <= about.memory <= MOST_MEMORY:
        raise BadDescription(
            f"memory of {about.memory} bytes: expected whole pages, "
            f"{LEAST_MEMORY >> 20}M to {MOST_MEMORY >> 20}M"
        )


def open_disk(about: MachineDescription) -> BinaryIO | None:
    """The disk image as a file, for the caller to close; raises `BadDescription`."""
    if about.disk is None:
        return None
    if isinstance(about.disk, bytes):
        return BytesIO(about.disk)
    through = about.disk_writes is Writes.THROUGH
    try:
        return about.disk.open("r+b") if through else about.disk.open("rb")
    except OSError as error:
        raise BadDescription(f"disk {str(about.disk)!r}: {error.strerror}") from None
