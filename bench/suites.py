"""The suites, as data: which guests, ROMs, policies and sizes each one runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from bench.inputs import Guest, RomChoice, load_guest, load_rom
from bench.points import Point
from bench.record import Case
from bench.tcg import QEMU_ENGINE
from rombuilder.rom import Visibility
from vmi.queue import DEFAULT_CAPACITY, MAX_CAPACITY
from vmm.core.policy import POLICIES, policy_named
from vmm.filters import load_filter, shipped_filters
from vmm.machine import MachineDescription

__all__ = [
    "IO_UNITS",
    "PORTS",
    "PORTS_CALLED",
    "PORTS_PADDED",
    "QUEUES",
    "WORKLOADS",
    "batching",
    "io",
    "linux",
    "make_point",
    "paging",
]

WORKLOADS = ("ctxswitch", "forkstorm", "mmapstorm", "pagefault")
"""The built-in guests that do page-table work, and one that does little of it."""

QUEUES = tuple(1 << i for i in range(MAX_CAPACITY.bit_length()))
"""1, 2, 4 ... 1024 records."""

_QUICK_QUEUES = (1, 8, 64, DEFAULT_CAPACITY, MAX_CAPACITY)
_TABLE_SIZES = (32, 128, 512)
_QUICK_SIZES = (32,)
_PAGED = ("forkstorm", "mmapstorm", "pagefault")


def make_point(
    suite: str,
    guest: Guest,
    rom: RomChoice,
    about: MachineDescription,
    *,
    disk: bytes = b"",
    places: int = 0,
    measures: Mapping[str, float] | None = None,
    engine: str = "unicorn",
) -> Point:
    """A guest with a ROM on the machine that `about` describes; its guest and ROM are replaced.

    Without a `disk` the guest gets the one that it wants, if any.
    """
    disk = disk or guest.disk
    case = Case(
        suite=suite,
        guest=guest.name,
        guest_sha256=sha256(guest.image).hexdigest(),
        rom=rom.name,
        policy=about.policy.name,
        memory=about.memory,
        engine=engine,
        command_line=about.command_line,
        initrd_sha256=None if about.initrd is None else sha256(about.initrd).hexdigest(),
        disk_sha256=sha256(disk).hexdigest() if disk else None,
        rom_sha256=rom.sha256,
        queue=rom.queue,
        calls=rom.calls,
        visibility=rom.visibility,
        cpus=about.cpus,
        variant=_variant(about),
    )
    description = replace(about, guest=guest.image, rom=rom.image)
    return Point(case, description, disk, places, dict(measures or {}))


def _variant(about: MachineDescription) -> str:
    """What the machine has beyond the ordinary."""
    filters = "+".join(program.name for program in about.filters)
    parts = [
        *(["apic"] if about.apic else []),
        *(["reflection"] if about.reflect else []),
        *([f"filter {filters}"] if filters else []),
    ]
    return ", ".join(parts) or "plain"


def _about(policy: str, command_line: str = "") -> MachineDescription:
    return MachineDescription(guest=b"", policy=policy_named(policy), command_line=command_line)


def _names(given: Sequence[str], default: Sequence[str]) -> Sequence[str]:
    return given or default


def batching(
    guests: Sequence[str] = (),
    policies: Sequence[str] = (),
    visibilities: Sequence[str] = (Visibility.TLB.value,),
    *,
    quick: bool = False,
) -> list[Point]:
    """Queue sizes x guests x policies, with no ROM and the identity ROM as baselines.

    `quick` takes fewer queue sizes and, unless told otherwise, one policy.
    """
    every = [policy.name for policy in POLICIES]
    queues = _QUICK_QUEUES if quick else QUEUES
    roms = [load_rom("none"), load_rom("identity")]
    for visibility in visibilities:
        roms += [load_rom("batching", queue, Visibility(visibility)) for queue in queues]
    return [
        make_point("batching", guest, rom, _about(policy))
        for policy in _names(policies, every[:1] if quick else every)
        for guest in map(load_guest, _names(guests, WORKLOADS))
        for rom in roms
    ]


def paging(
    guests: Sequence[str] = (), policies: Sequence[str] = (), *, quick: bool = False
) -> list[Point]:
    """What page-table work costs: sizes x guests x policies x ROMs, both visibilities.

    A guest's parameter `pages` is how many pages it maps at a time; the row's measure
    `pages` says the same.
    """
    every = [policy.name for policy in POLICIES]
    roms = [
        load_rom("none"),
        load_rom("identity"),
        *(load_rom("batching", visibility=visibility) for visibility in Visibility),
    ]
    return [
        make_point(
            "paging", guest, rom, _about(policy, f"pages={pages}"), measures={"pages": pages}
        )
        for policy in _names(policies, every)
        for guest in map(load_guest, _names(guests, _PAGED))
        for pages in (_QUICK_SIZES if quick else _TABLE_SIZES)
        for rom in roms
    ]


def linux(
    kernel: Guest, initrd: bytes, command_line: str, roms: Iterable[RomChoice], memory: int
) -> list[Point]:
    """A boot in QEMU's TCG and one with each ROM here, all with the same kernel and memory.

    QEMU's comes first: it is what CPU time is compared with.
    """
    about = replace(_about(POLICIES[0].name, command_line), initrd=initrd, memory=memory)
    return [
        make_point("linux", kernel, RomChoice("none"), about, engine=QEMU_ENGINE),
        *(make_point("linux", kernel, rom, about, places=50) for rom in roms),
    ]


IO_UNITS: Mapping[str, str] = {
    "reads": "4 KiB, 8 commands",
    "blocks": "4 KiB, 1 command",
    "bytes": "console byte",
    "times": "time read",
    "polls": "time polled",
}
"""Parameters of the guest iostorm, each with the operation that it counts: sectors are read
from an IDE disk by PIO, bytes go to the serial port, the time is a counter of the PIT, latched,
or a ROM's cycle counter, and polled it is the counter as it runs."""

PORTS = "ports"
"""The parameter of iostorm that says how a port is accessed, also among a row's measures."""
PORTS_CALLED, PORTS_NATIVE, PORTS_PADDED = 1, 2, 3
"""By a ROM's calls; by native instructions beside it; by native ones as long as a call."""
_IO_BASE = 2
"""So that an instruction which is reflected has been found and replaced before the difference."""
_IO_DISK = bytes(i * 7 + (i >> 9) & 0xFF for i in range(1 << 16))


def io(policies: Sequence[str] = (), *, quick: bool = False) -> list[Point]:
    """One operation of each kind many times, and the same guest with hardly any.

    On a plain machine; on one with all port filters; with the batching ROM, which gets the
    exits of a guest that does not call it for ports, whose instructions leave room for a
    call or not; and with that ROM called for ports and the time. The difference of two
    runs, divided by that of their operations, is what one costs (`bench.iocost`).
    """
    more = 8 if quick else 64
    guest, none, batching = load_guest("iostorm"), load_rom("none"), load_rom("batching")
    plain = MachineDescription(guest=b"")
    filtered = replace(plain, filters=tuple(load_filter(name) for name in shipped_filters()))
    reflecting = replace(plain, reflect=True)
    machines = [
        (none, plain, PORTS_CALLED),
        (none, filtered, PORTS_CALLED),
        (batching, reflecting, PORTS_NATIVE),
        (batching, reflecting, PORTS_PADDED),
        (batching, plain, PORTS_CALLED),
    ]
    least = dict.fromkeys(IO_UNITS, _IO_BASE)
    loads = [least, *({**least, unit: _IO_BASE + more} for unit in IO_UNITS)]
    points = []
    for policy in _names(policies, [POLICIES[0].name]):
        for rom, machine, ports in machines:
            for load in loads:
                measures = {**load, PORTS: ports}
                line = " ".join(f"{name}={value}" for name, value in measures.items())
                points.append(
                    make_point(
                        "io",
                        guest,
                        rom,
                        replace(machine, policy=policy_named(policy), command_line=line),
                        disk=_IO_DISK,
                        places=20,
                        measures={name: float(value) for name, value in measures.items()},
                    )
                )
    return points
