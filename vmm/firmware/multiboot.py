"""Load a guest by the Multiboot specification, version 0.6.96 (a.out fields)."""

import struct

from vmi.address import GuestPhysical
from vmm.core.errors import BadDescription
from vmm.firmware.boot import BootPlan, Segment

__all__ = ["is_multiboot", "plan_multiboot"]

BOOT_MAGIC = 0x2BADB002
"""What EAX holds when the guest starts."""

_HEADER_MAGIC = 0x1BADB002
_SEARCH = 8192
_HAS_ADDRESSES = 1 << 16
_INFO_MEMORY = 1 << 0
_INFO_COMMAND_LINE = 1 << 2
_INFO_SIZE = 120
_ONE_MIB = 1 << 20
_INFO = GuestPhysical(0x9000)
_INFO_END = 0x80000
_STACK = 0x8000
_CODE, _DATA = 0x08, 0x10
_EAX, _EBX, _ESP = 0, 3, 4


def _find_header(image: bytes) -> tuple[int, int] | None:
    """Offset and flags of the header in the first 8 KiB."""
    for offset in range(0, min(len(image), _SEARCH) - 31, 4):
        magic, flags, check = struct.unpack_from("<3I", image, offset)
        if magic == _HEADER_MAGIC and (magic + flags + check) & 0xFFFFFFFF == 0:
            return offset, flags
    return None


def is_multiboot(image: bytes) -> bool:
    """Does the image carry a Multiboot header?"""
    return _find_header(image) is not None


def plan_multiboot(image: bytes, memory: int, command_line: str) -> BootPlan:
    """Cut the image out and describe its start. `memory` is in bytes.

    Raises `BadDescription` when there is no header, or one that is not usable.
    """
    found = _find_header(image)
    if found is None:
        raise BadDescription(
            f"no Multiboot header ({_HEADER_MAGIC:#x}) in the first {_SEARCH} bytes of the guest"
        )
    offset, flags = found
    if not flags & _HAS_ADDRESSES:
        raise BadDescription(
            f"Multiboot header flags {flags:#x} lack bit 16: only images with load addresses "
            "in their header can be loaded"
        )
    header, load, load_end, bss_end, entry = struct.unpack_from("<5I", image, offset + 12)
    start = offset - (header - load)
    if header < load or start < 0:
        raise BadDescription(
            f"Multiboot header address {header:#x} does not fit load address {load:#x} "
            f"and file offset {offset:#x}"
        )
    length = (load_end - load) if load_end else len(image) - start
    if length < 0 or start + length > len(image):
        raise BadDescription(
            f"Multiboot image ends at {load_end:#x}, but the file holds only "
            f"{len(image) - start} bytes from {load:#x} on"
        )
    end = max(bss_end, load + length)
    if load < _ONE_MIB or end > memory:
        raise BadDescription(
            f"guest occupies {load:#x}-{end:#x}, expected within {_ONE_MIB:#x}-{memory:#x}"
        )
    if not load <= entry < end:
        raise BadDescription(f"guest entry {entry:#x} is outside {load:#x}-{end:#x}")
    information = _information(memory, command_line)
    if _INFO + len(information) > _INFO_END:
        raise BadDescription(f"command line of {len(command_line)} characters is too long")
    return BootPlan(
        "Multiboot",
        (
            Segment(GuestPhysical(load), image[start : start + length]),
            Segment(_INFO, information),
        ),
        GuestPhysical(entry),
        _CODE,
        _DATA,
        {_EAX: BOOT_MAGIC, _EBX: _INFO, _ESP: _STACK},
    )


def _information(memory: int, command_line: str) -> bytes:
    """The information structure, followed by the command line."""
    info = bytearray(_INFO_SIZE)
    struct.pack_into(
        "<3I", info, 0, _INFO_MEMORY | _INFO_COMMAND_LINE, 640, (memory - _ONE_MIB) // 1024
    )
    struct.pack_into("<I", info, 16, _INFO + _INFO_SIZE)
    return bytes(info) + command_line.encode() + b"\0"
