"""Load a guest by the Multiboot specification, version 0.6.96 (a.out fields)."""

import struct
from dataclasses import dataclass

from vmi.address import GuestPhysical
from vmm.core.errors import BadDescription

__all__ = ["BOOT_MAGIC", "FlatImage", "boot_information", "parse_multiboot"]

BOOT_MAGIC = 0x2BADB002
"""What EAX holds when the guest starts."""

_HEADER_MAGIC = 0x1BADB002
_SEARCH = 8192
_HAS_ADDRESSES = 1 << 16
_INFO_MEMORY = 1 << 0
_INFO_COMMAND_LINE = 1 << 2
_INFO_SIZE = 120
_ONE_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class FlatImage:
    """A guest to be copied to `address`; memory up to `end` is cleared, `entry` is called."""

    address: GuestPhysical
    data: bytes
    end: GuestPhysical
    entry: GuestPhysical


def parse_multiboot(image: bytes) -> FlatImage:
    """Find the header in the first 8 KiB and cut the image out.

    Raises `BadDescription` when there is no header, or one that is not usable.
    """
    for offset in range(0, min(len(image), _SEARCH) - 31, 4):
        magic, flags, check = struct.unpack_from("<3I", image, offset)
        if magic == _HEADER_MAGIC and (magic + flags + check) & 0xFFFFFFFF == 0:
            return _flat_image(image, offset, flags)
    raise BadDescription(
        f"no Multiboot header ({_HEADER_MAGIC:#x}) in the first {_SEARCH} bytes of the guest"
    )


def _flat_image(image: bytes, offset: int, flags: int) -> FlatImage:
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
    return FlatImage(
        GuestPhysical(load), image[start : start + length], GuestPhysical(end), GuestPhysical(entry)
    )


def boot_information(address: GuestPhysical, memory_size: int, command_line: str) -> bytes:
    """The information structure for `address`, followed by the command line."""
    text = command_line.encode() + b"\0"
    info = bytearray(_INFO_SIZE)
    struct.pack_into(
        "<3I",
        info,
        0,
        _INFO_MEMORY | _INFO_COMMAND_LINE,
        640,
        (memory_size - _ONE_MIB) // 1024,
    )
    struct.pack_into("<I", info, 16, address + _INFO_SIZE)
    return bytes(info) + text
