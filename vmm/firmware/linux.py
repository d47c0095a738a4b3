"""The Linux/x86 32-bit boot protocol (Linux Documentation/x86/boot.txt, zero-page.txt).

Everything here only describes what a boot needs; loading is the machine's.
"""

import struct
from dataclasses import dataclass

from vmi.address import PAGE_MASK, PAGE_SIZE, GuestPhysical
from vmm.core.errors import BadDescription
from vmm.firmware.boot import BootPlan, Segment
from vmm.firmware.bzimage import SETUP_HEADER, BzImage, parse_bzimage
from vmm.firmware.e820 import EBDA_START, E820Entry, memory_map, pack_entries
from vmm.firmware.elf import ElfImage, is_elf, parse_elf

__all__ = ["BOOT_PARAMS", "COMMAND_LINE", "plan_linux"]

BOOT_PARAMS = GuestPhysical(0x90000)
COMMAND_LINE = GuestPhysical(0x91000)
_STACK = 0x8F000
_COMMAND_LINE_ROOM = EBDA_START - COMMAND_LINE

_CODE, _DATA = 0x10, 0x18
_ESP, _ESI = 4, 6

_ONE_MIB = 1 << 20
_UNKNOWN_LOADER = 0xFF
_LOADED_HIGH = 0x01
_ELF_PROTOCOL = 0x0206
_ELF_HEADER_END = 0x23C
_ELF_COMMAND_LINE = 2047
_ELF_INITRD_MAX = 0x37FFFFFF
_NORMAL_VIDEO = 0xFFFF
_CODE32_START = 0x214

_BDA_EBDA, _BDA_BASE_MEMORY = 0x40E, 0x413
_TEXT_MODE, _COLUMNS, _LINES, _FONT_HEIGHT = 3, 80, 25, 16


def plan_linux(
    image: bytes, memory: int, command_line: str = "", initrd: bytes | None = None
) -> BootPlan:
    """How to start a bzImage or a `vmlinux` in a machine with `memory` bytes of RAM.

    Raises `BadDescription` for an image that cannot be started, or when something
    does not fit.
    """
    entries = memory_map(memory)
    if is_elf(image):
        protocol, kernel = "Linux vmlinux", _vmlinux(parse_elf(image), memory)
    else:
        parsed = parse_bzimage(image)
        protocol, kernel = f"Linux {parsed.protocol_name}", _place(parsed, memory)
    text = _command_line(command_line, kernel.command_line_max)
    disk = _initrd(initrd, kernel, memory)
    params = _boot_params(kernel.setup_header, disk, entries, memory)
    return BootPlan(
        protocol,
        (
            *_bios_data(),
            _segment(BOOT_PARAMS, params),
            _segment(COMMAND_LINE, text),
            *kernel.segments,
            *([] if disk is None else [disk]),
        ),
        GuestPhysical(kernel.entry),
        _CODE,
        _DATA,
        {_ESI: BOOT_PARAMS, _ESP: _STACK},
        pages=True,
    )


@dataclass(frozen=True, slots=True)
class _Kernel:
    """A kernel whose place in memory is settled. `end` is the end of what it needs at first."""

    segments: tuple[Segment, ...]
    entry: int
    end: int
    setup_header: bytes
    command_line_max: int
    initrd_max: int


def _place(image: BzImage, memory: int) -> _Kernel:
    load = run = image.code_start
    if image.relocatable:
        # It runs where it is put, so the second best place will do in a small machine.
        wishes = [_ONE_MIB] if image.preferred is None else [image.preferred, _ONE_MIB]
        aligned = [-(-wish // image.alignment) * image.alignment for wish in wishes]
        load = next((at for at in aligned if at + image.init_size <= memory), aligned[-1])
        run = load
    elif image.preferred is not None:
        run = image.preferred
    end = max(run + image.init_size, load + len(image.kernel))
    _check_fit(min(load, run), end, memory)
    header = bytearray(image.setup_header)
    struct.pack_into("<I", header, _CODE32_START - SETUP_HEADER, load)
    return _Kernel(
        (_segment(load, image.kernel),),
        load,
        end,
        bytes(header),
        image.command_line_max,
        image.initrd_max,
    )


def _vmlinux(image: ElfImage, memory: int) -> _Kernel:
    _check_fit(image.start, image.end, memory)
    return _Kernel(
        image.segments,
        image.entry,
        image.end,
        _elf_setup_header(),
        _ELF_COMMAND_LINE,
        _ELF_INITRD_MAX,
    )


def _check_fit(start: int, end: int, memory: int) -> None:
    if start < _ONE_MIB or end > memory:
        raise BadDescription(
            f"kernel needs {start:#x}-{end:#x}: expected within {_ONE_MIB:#x}-{memory:#x}, "
            "which is the machine's memory"
        )


def _elf_setup_header() -> bytes:
    """The header that a bare kernel lacks; the kernel looks for magic and version."""
    header = bytearray(_ELF_HEADER_END - SETUP_HEADER)
    for offset, code, value in (
        (0x1FA, "<H", _NORMAL_VIDEO),
        (0x1FE, "<H", 0xAA55),
        (0x202, "<4s", b"HdrS"),
        (0x206, "<H", _ELF_PROTOCOL),
        (0x211, "<B", _LOADED_HIGH),
        (0x22C, "<I", _ELF_INITRD_MAX),
        (0x238, "<I", _ELF_COMMAND_LINE),
    ):
        struct.pack_into(code, header, offset - SETUP_HEADER, value)
    return bytes(header)


def _command_line(text: str, limit: int) -> bytes:
    data = text.encode()
    room = min(limit, _COMMAND_LINE_ROOM - 1)
    if len(data) > room:
        raise BadDescription(f"command line of {len(data)} bytes: this kernel takes {room} at most")
    if b"\0" in data:
        raise BadDescription(f"command line {text!r}: expected no NUL in it")
    return data + b"\0"


def _initrd(initrd: bytes | None, kernel: _Kernel, memory: int) -> Segment | None:
    """At the top of the RAM that the kernel can use for it, on pages of its own."""
    if not initrd:
        return None
    top = min(memory, kernel.initrd_max + 1)
    address = (top - len(initrd)) & ~PAGE_MASK
    if address < kernel.end:
        raise BadDescription(
            f"initial RAM disk of {len(initrd)} bytes: expected to fit between the kernel's end "
            f"{kernel.end:#x} and {top:#x}"
        )
    return _segment(address, initrd)


def _bios_data() -> tuple[Segment, ...]:
    """What kernels read in low memory: the EBDA's segment and size, the KiB below it."""
    return (
        _segment(_BDA_EBDA, struct.pack("<H", EBDA_START >> 4)),
        _segment(_BDA_BASE_MEMORY, struct.pack("<H", EBDA_START >> 10)),
        _segment(EBDA_START, b"\x01"),
    )


def _boot_params(
    setup_header: bytes, initrd: Segment | None, entries: tuple[E820Entry, ...], memory: int
) -> bytes:
    page = bytearray(PAGE_SIZE)
    page[SETUP_HEADER : SETUP_HEADER + len(setup_header)] = setup_header
    extended = memory // 1024 - 1024
    packed = pack_entries(entries)
    for offset, code, value in (
        # No display adapter is there; mode and size are what the dummy console goes by.
        (0x002, "<H", min(extended, 0xFFFF)),
        (0x006, "<B", _TEXT_MODE),
        (0x007, "<B", _COLUMNS),
        (0x00E, "<B", _LINES),
        (0x010, "<H", _FONT_HEIGHT),
        (0x1E0, "<I", extended),
        (0x1E8, "<B", len(entries)),
        (0x1FA, "<H", _NORMAL_VIDEO),
        (0x210, "<B", _UNKNOWN_LOADER),
        (0x211, "<B", page[0x211] | _LOADED_HIGH),
        (0x218, "<I", 0 if initrd is None else initrd.address),
        (0x21C, "<I", 0 if initrd is None else len(initrd.data)),
        (0x228, "<I", COMMAND_LINE),
        (0x2D0, f"{len(packed)}s", packed),
    ):
        struct.pack_into(code, page, offset, value)
    return bytes(page)


def _segment(address: int, data: bytes) -> Segment:
    return Segment(GuestPhysical(address), data)
