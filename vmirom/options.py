"""Options that several verbs share, and the machine description they make."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from bench.inputs import RomChoice, load_initrd, load_rom
from bench.symbols import SymbolMap, read_system_map
from rombuilder.flavour import Visibility
from vmi.queue import DEFAULT_CAPACITY, MAX_CAPACITY
from vmirom.gather import gather
from vmm.core.errors import BadDescription
from vmm.core.policy import POLICIES, policy_named
from vmm.core.vm import MOST_CPUS
from vmm.description import DEFAULT_MAX_INSTRUCTIONS, DEFAULT_MEMORY, MachineDescription
from vmm.deviceentries import plug_named
from vmm.engines import EngineName
from vmm.filters import load_filter

__all__ = [
    "Listed",
    "RomTuning",
    "Size",
    "as_json",
    "engine_option",
    "listing_options",
    "machine_options",
    "rom_option",
    "rom_options",
    "visibility_option",
]

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Size(click.ParamType[int]):
    """A number of bytes, with K, M or G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """1048576, 1024K and 1M are the same."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)([KMG]?)", str(value).upper())
        if match is None:
            self.fail(f"{value!r}: expected a number of bytes, or one with K, M or G", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


class _Text(click.ParamType[str]):
    """Text that can be put into a guest's memory."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{text!r}: expected UTF-8", param, ctx)
        return text


def machine_options(function: F) -> F:
    """What every run of a machine can be given: the argument `about`, without guest and ROM."""
    return gather(
        "about",
        description,
        click.option(
            "--mark",
            "marks",
            multiple=True,
            metavar="TEXT",
            help="Begin a new phase when the console first prints TEXT; may be repeated.",
        ),
        click.option(
            "--filter",
            "filters",
            multiple=True,
            metavar="NAME|FILE",
            help="Let a port filter answer reads of its ports in the core; see `vmirom filters`. "
            "May be repeated.",
        ),
        click.option(
            "--reflect",
            is_flag=True,
            help="Send native accesses to the IDE channels' ports to a batching ROM, which answers "
            "them in the device's place.",
        ),
        click.option(
            "--device",
            "devices",
            multiple=True,
            metavar="NAME[,KEY=VALUE...]",
            help="Plug in another package's device; see `vmirom devices`. May be repeated.",
        ),
        click.option(
            "--disk",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Image of the first IDE disk; what the guest writes to it is forgotten.",
        ),
        click.option(
            "--initrd",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Initial RAM disk for a Linux guest.",
        ),
        click.option(
            "--max-instructions",
            type=click.IntRange(min=1),
            default=DEFAULT_MAX_INSTRUCTIONS,
            show_default=True,
            metavar="N",
            help="End the run after N guest instructions.",
        ),
        click.option(
            "--seconds",
            type=click.FloatRange(min=0, min_open=True),
            metavar="S",
            help="End the run after S seconds of this host's time.",
        ),
        click.option(
            "--until",
            default="",
            metavar="TEXT",
            help="End the run, as passed, when the console prints a line with TEXT.",
        ),
        click.option(
            "--append", type=_Text(), default="", metavar="TEXT", help="The guest's command line."
        ),
        click.option(
            "--memory",
            type=Size(),
            default=f"{DEFAULT_MEMORY >> 20}M",
            show_default=True,
            help="Guest memory.",
        ),
        click.option(
            "--intercept",
            "intercepts",
            multiple=True,
            metavar="±NAME",
            help="Add (+) or drop (-) an intercept of the policy, e.g. +rdtsc.",
        ),
        click.option(
            "--policy",
            default=POLICIES[0].name,
            show_default=True,
            metavar="NAME",
            help="Which processor the exits are counted for; see `vmirom policies`.",
        ),
        click.option(
            "--cpus",
            type=click.IntRange(1, MOST_CPUS),
            default=1,
            show_default=True,
            metavar="N",
            help="Virtual CPUs; with more than one the guest sees their local APICs.",
        ),
        click.option(
            "--apic",
            is_flag=True,
            help="Show the guest a local APIC, an I/O APIC, and the tables that name them.",
        ),
        click.option(
            "--ioapic-process",
            is_flag=True,
            help="Let the I/O APIC be a process of its own; counts stay what they are.",
        ),
    )(function)


def engine_option(function: F) -> F:
    """What executes the guest."""
    return click.option(
        "--engine",
        default=EngineName.UNICORN.value,
        show_default=True,
        metavar="NAME",
        help="What executes the guest; see `vmirom engines`.",
    )(function)


def visibility_option(function: F) -> F:
    """When the batching flavour tells the monitor of changes."""
    return click.option(
        "--visibility",
        type=click.Choice([visibility.value for visibility in Visibility]),
        default=Visibility.TLB.value,
        show_default=True,
        help="When the batching ROM tells of a change to a present entry: as a processor's TLB "
        "would notice (tlb), or before the call returns unless the guest says that it may wait "
        "(strict).",
    )(function)


@dataclass(frozen=True, slots=True)
class RomTuning:
    """How the ROMs of a run are built: the options of `rom_options`."""

    queue: int
    visibility: str

    def load(self, name: str) -> RomChoice:
        """The ROM that a user names; raises `BadDescription` when there is none."""
        return load_rom(name, self.queue, Visibility(self.visibility))


def rom_options(function: F) -> F:
    """How a batching ROM that the toolkit builds behaves: the argument `tuning`."""
    return gather(
        "tuning",
        RomTuning,
        visibility_option,
        click.option(
            "--queue",
            type=click.IntRange(1, MAX_CAPACITY),
            default=DEFAULT_CAPACITY,
            show_default=True,
            metavar="N",
            help="Capacity of the batching ROM's queue, in records.",
        ),
    )(function)


def rom_option(function: F) -> F:
    """The ROM of a single run."""
    return click.option(
        "--rom",
        "rom_name",
        default="none",
        show_default=True,
        metavar="none|identity|batching|FILE",
        help="The ROM in the machine.",
    )(function)


@dataclass(frozen=True, slots=True)
class Listed:
    """The options of `listing_options`: what to list of a run besides its exits by reason."""

    show_calls: bool
    place_count: int
    system_map: Path | None

    def symbols(self, own: SymbolMap) -> SymbolMap:
        """Names for places: those of the file that was given, else the guest's `own`."""
        return own if self.system_map is None else read_system_map(self.system_map)


def listing_options(function: F) -> F:
    """Lists of what was counted: the argument `listed`."""
    return gather(
        "listed",
        Listed,
        click.option(
            "--symbols",
            "system_map",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Names for --places: the kernel's System.map.",
        ),
        click.option(
            "--places",
            "place_count",
            type=click.IntRange(min=0),
            default=0,
            metavar="N",
            help="List the N most frequent places.",
        ),
        click.option(
            "--calls", "show_calls", is_flag=True, help="List the ROM's calls and their cost."
        ),
    )(function)


def as_json(function: F) -> F:
    """Print JSON instead of a table."""
    return click.option("--json", "json_output", is_flag=True, help="Print one JSON object.")(
        function
    )


def description(
    *,
    policy: str,
    intercepts: Sequence[str],
    memory: int,
    append: str,
    max_instructions: int,
    seconds: float | None,
    until: str,
    initrd: Path | None,
    disk: Path | None,
    marks: tuple[str, ...],
    filters: tuple[str, ...],
    reflect: bool,
    devices: tuple[str, ...],
    apic: bool,
    ioapic_process: bool,
    cpus: int,
) -> MachineDescription:
    """The machine that the options ask for; the guest and ROM are filled in later.

    Raises `BadDescription` for a policy, intercept, filter or device that does not exist, and
    for an I/O APIC in a process of its own where there is none.
    """
    if ioapic_process and not (apic or cpus > 1):
        raise BadDescription("--ioapic-process: there is no I/O APIC; expected --apic or --cpus")
    return MachineDescription(
        guest=b"",
        command_line=append,
        initrd=load_initrd(initrd),
        disk=disk,
        marks=marks,
        filters=tuple(load_filter(name) for name in filters),
        reflect=reflect,
        devices=tuple(plug_named(text) for text in devices),
        memory=memory,
        policy=policy_named(policy).adjusted(intercepts),
        max_instructions=max_instructions,
        seconds=seconds,
        until=until,
        apic=apic,
        ioapic_process=ioapic_process,
        cpus=cpus,
    )
