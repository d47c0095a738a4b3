"""Kernels as ELF32 executables (System V ABI, fourth edition, chapters 4 and 5)."""

import struct
from dataclasses import dataclass
from itertools import pairwise

from vmi.address import GuestPhysical
from vmm.core.errors import BadDescription
from vmm.firmware.boot import Segment

__all__ = ["ElfImage", "is_elf", "parse_elf"]

_MAGIC = b"\x7fELF"
_CLASS_32, _LITTLE_ENDIAN, _EXECUTABLE, _MACHINE_386 = 1, 1, 2, 3
_CLASS_64 = 2
_LOADABLE = 1
_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
_PROGRAM = struct.Struct("<8I")


@dataclass(frozen=True, slots=True)
class ElfImage:
    """What to load at which guest-physical address, and where to start.

    `end` is the address behind the last segment; from the end of a segment's data on
    its memory is to be zero.
    """

    segments: tuple[Segment, ...]
    entry: GuestPhysical
    end: GuestPhysical

    @property
    def start(self) -> int:
        """The lowest address."""
        return self.segments[0].address


@dataclass(frozen=True, slots=True)
class _Program:
    """A PT_LOAD program header."""

    offset: int
    virtual: int
    physical: int
    in_file: int
    in_memory: int

    @property
    def end(self) -> int:
        return self.physical + self.in_memory


def is_elf(image: bytes) -> bool:
    """Does it begin as an ELF file?"""
    return image.startswith(_MAGIC)


def parse_elf(image: bytes) -> ElfImage:
    """The loadable segments by physical address, lowest first.

    An entry that is a virtual address is turned into a physical one. Raises
    `BadDescription` for anything but a little-endian i386 executable, or one cut short.
    """
    entry, programs = _programs(image)
    programs.sort(key=lambda program: program.physical)
    for program in programs:
        _check(program, len(image))
    for lower, upper in pairwise(programs):
        if lower.end > upper.physical:
            raise BadDescription(
                f"ELF segments overlap: {lower.physical:#x}-{lower.end:#x} and "
                f"{upper.physical:#x}-{upper.end:#x}"
            )
    segments = tuple(
        Segment(GuestPhysical(p.physical), image[p.offset : p.offset + p.in_file]) for p in programs
    )
    return ElfImage(segments, _physical_entry(entry, programs), GuestPhysical(programs[-1].end))


def _physical_entry(entry: int, programs: list[_Program]) -> GuestPhysical:
    for program in programs:
        if program.physical <= entry < program.end:
            return GuestPhysical(entry)
    for program in programs:
        if program.virtual <= entry < program.virtual + program.in_memory:
            return GuestPhysical(entry - program.virtual + program.physical)
    raise BadDescription(f"ELF entry {entry:#x} lies in none of the {len(programs)} segments")


def _check(program: _Program, file_size: int) -> None:
    if program.offset + program.in_file > file_size:
        raise BadDescription(
            f"ELF segment at {program.physical:#x} ends at file offset "
            f"{program.offset + program.in_file:#x}, but the file has only {file_size:#x} bytes"
        )
    if program.in_file > program.in_memory or program.end > 1 << 32:
        raise BadDescription(
            f"ELF segment at {program.physical:#x} of {program.in_file:#x} bytes in the file and "
            f"{program.in_memory:#x} in memory: expected no more in the file, and all below 4 GiB"
        )


def _programs(image: bytes) -> tuple[int, list[_Program]]:
    """The entry and the program headers of what is to be loaded."""
    if len(image) < _HEADER.size:
        raise BadDescription(f"ELF file of {len(image)} bytes: expected {_HEADER.size} at least")
    ident, kind, machine, _, entry, at, _, _, _, size, count, *_ = _HEADER.unpack_from(image)
    _check_identity(ident, kind, machine)
    if count and size < _PROGRAM.size:
        raise BadDescription(f"ELF program headers of {size} bytes: expected {_PROGRAM.size}")
    if at + count * size > len(image):
        raise BadDescription(
            f"ELF program headers end at file offset {at + count * size:#x}, "
            f"but the file has only {len(image):#x} bytes"
        )
    headers = [_PROGRAM.unpack_from(image, at + i * size) for i in range(count)]
    programs = [
        _Program(offset, virtual, physical, in_file, in_memory)
        for kind, offset, virtual, physical, in_file, in_memory, *_ in headers
        if kind == _LOADABLE and in_memory
    ]
    if not programs:
        raise BadDescription(f"ELF file of {count} program headers: expected a PT_LOAD among them")
    return entry, programs


def _check_identity(ident: bytes, kind: int, machine: int) -> None:
    if not is_elf(ident):
        raise BadDescription(f"ELF magic {ident[:4]!r}: expected {_MAGIC!r}")
    if ident[4] == _CLASS_64:
        raise BadDescription("ELF class 64-bit: only 32-bit kernels can be started")
    if (ident[4], ident[5], machine) != (_CLASS_32, _LITTLE_ENDIAN, _MACHINE_386):
        raise BadDescription(
            f"ELF class {ident[4]}, data {ident[5]}, machine {machine}: "
            f"expected {_CLASS_32}, {_LITTLE_ENDIAN} and {_MACHINE_386} (i386)"
        )
    if kind != _EXECUTABLE:
        raise BadDescription(f"ELF type {kind}: expected {_EXECUTABLE}, an executable")
