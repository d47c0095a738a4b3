"""Filters into a machine: found, read, verified, and put in front of the devices."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from vmm.core.bus import PortBus, SharesState
from vmm.core.errors import BadDescription
from vmm.core.ports.filters import PortFilters
from vmm.core.ports.filtervm import FilterMachine
from vmm.filters.isa import encode
from vmm.filters.program import BadFilter, FilterProgram
from vmm.filters.text import assemble_text
from vmm.filters.verifier import RejectedFilter, verify

__all__ = ["AttachedFilter", "attach", "attached", "load_filter", "shipped_filters"]

_ALIGNMENT = 8
_ELF_MAGIC = b"\x7fELF"
_SUFFIX = ".bpf"


@dataclass(frozen=True, slots=True)
class AttachedFilter:
    """A filter at work: `answered` reads cost a light exit each, `passed` ones a heavy one."""

    name: str
    sha256: str
    answered: int
    passed: int


def shipped_filters() -> list[str]:
    """The names of the filters that come with the package."""
    folder = resources.files("vmm.filters") / "shipped"
    return sorted(
        entry.name.removesuffix(_SUFFIX)
        for entry in folder.iterdir()
        if entry.name.endswith(_SUFFIX)
    )


def load_filter(name: str) -> FilterProgram:
    """A shipped filter by name, or a file: an ELF object or source text.

    Raises `BadDescription` for a file that cannot be read or is no filter. The program
    is not verified yet.
    """
    if name in shipped_filters():
        source = resources.files("vmm.filters") / "shipped" / f"{name}{_SUFFIX}"
        return assemble_text(source.read_text(encoding="utf-8"), name)
    path = Path(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadDescription(
            f"filter {name!r}: {error.strerror}; expected a file or one of "
            f"{', '.join(shipped_filters())}"
        ) from None
    try:
        if data.startswith(_ELF_MAGIC):
            # LIEF takes longer to load than most guests to run.
            from vmm.filters.elf import read_object  # noqa: PLC0415

            return read_object(data, path.name)
        return assemble_text(data.decode("utf-8"), path.name)
    except UnicodeDecodeError:
        raise BadDescription(
            f"filter {name!r}: neither an ELF object nor source text in UTF-8"
        ) from None
    except BadFilter as error:
        raise BadDescription(str(error)) from None


def attach(programs: Iterable[FilterProgram], bus: PortBus, filters: PortFilters) -> None:
    """Verify programs and let each see the reads of its ports first.

    The devices behind a program's ports share their state with it, each at the next
    multiple of 8 bytes, in the order of the ports. Raises `BadDescription` for a
    program that is rejected, that has too little state for its devices, or whose ports
    another has already.
    """
    for program in programs:
        try:
            verify(program)
        except RejectedFilter as error:
            raise BadDescription(f"filter rejected: {error}") from None
        machine = FilterMachine(program.rows(), program.state)
        try:
            filters.attach(
                machine, [port for r in program.ports for port in range(r.first, r.last + 1)]
            )
        except ValueError as error:
            raise BadDescription(f"filter {program.name!r}: {error}") from None
        _share(program, bus, machine.state)


def _share(program: FilterProgram, bus: PortBus, state: memoryview) -> None:
    devices: list[SharesState] = []
    for ports in program.ports:
        for port in range(ports.first, ports.last + 1):
            found: object = bus.device_at(port)
            if isinstance(found, SharesState) and found not in devices:
                devices.append(found)
    place = 0
    for device in devices:
        end = place + device.shared_size
        if end > len(state):
            raise BadDescription(
                f"filter {program.name!r} has {len(state)} bytes of state, expected at least "
                f"{end} for what {type(device).__name__} shares"
            )
        device.share(state[place:end])
        place = -(-end // _ALIGNMENT) * _ALIGNMENT


def attached(programs: Iterable[FilterProgram], filters: PortFilters) -> tuple[AttachedFilter, ...]:
    """How the filters of a machine have done, in the order they were attached."""
    found = []
    for number, program in enumerate(programs):
        answered, passed = filters.counts(number)
        digest = hashlib.sha256(encode(program.code)).hexdigest()
        found.append(AttachedFilter(program.name, digest, answered, passed))
    return tuple(found)
