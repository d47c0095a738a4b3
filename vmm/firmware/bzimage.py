"""The Linux kernel image bzImage and its setup header (Linux Documentation/x86/boot.txt)."""

import struct
import zlib
from dataclasses import dataclass

from vmm.core.errors import BadDescription

__all__ = ["BzImage", "is_bzimage", "parse_bzimage"]

SETUP_HEADER = 0x1F1
"""Where the setup header starts, in the file as in the boot parameters."""

_SECTOR = 512
_BOOT_FLAG, _BOOT_FLAG_AT = 0xAA55, 0x1FE
_MAGIC, _MAGIC_AT = b"HdrS", 0x202
_JUMP_OFFSET = 0x201
_LEAST_VERSION = 0x0202
_DEFAULT_SETUP_SECTORS = 4
_SMALLEST = 0x22C
"""The header of version 2.02 ends here."""
_LOADED_HIGH = 0x01
_64_BIT = 0x01
_ELF_CLASS_64 = b"\x7fELF\x02"
_GZIP = b"\x1f\x8b\x08"

_DEFAULT_INITRD_MAX = 0x37FFFFFF
_DEFAULT_COMMAND_LINE = 255


@dataclass(frozen=True, slots=True)
class BzImage:
    """A 32-bit kernel that loads high. Sizes are in bytes, addresses guest-physical."""

    protocol: int
    """Version of the boot protocol, 0x0202 and later."""
    setup_header: bytes
    kernel: bytes
    """The protected-mode part."""
    code_start: int
    initrd_max: int
    """The highest address an initial RAM disk may use."""
    command_line_max: int
    """Characters, without the final NUL."""
    relocatable: bool
    alignment: int
    """What a relocatable kernel's address is a multiple of; 1 for others."""
    preferred: int | None
    """Where the kernel would like to be, from version 2.10 on."""
    init_size: int
    """Memory it needs from there on before it can look at the memory map."""
    version: str

    @property
    def protocol_name(self) -> str:
        """As the documentation writes it: "2.09"."""
        return f"{self.protocol >> 8}.{self.protocol & 0xFF:02d}"


def is_bzimage(image: bytes) -> bool:
    """Does it have the setup header's magic?"""
    return image[_MAGIC_AT : _MAGIC_AT + 4] == _MAGIC


def parse_bzimage(image: bytes) -> BzImage:
    """Take a kernel image apart.

    Raises `BadDescription` for what is not a 32-bit bzImage of protocol 2.02 or later.
    """
    if len(image) < _SMALLEST:
        raise BadDescription(
            f"kernel image of {len(image)} bytes: expected a setup header up to {_SMALLEST:#x}"
        )
    flag = _word(image, _BOOT_FLAG_AT)
    if flag != _BOOT_FLAG:
        raise BadDescription(f"kernel boot flag {flag:#06x}: expected {_BOOT_FLAG:#06x}")
    if not is_bzimage(image):
        raise BadDescription(
            f"kernel setup magic {image[_MAGIC_AT : _MAGIC_AT + 4]!r}: expected {_MAGIC!r}"
        )
    protocol = _word(image, 0x206)
    if protocol < _LEAST_VERSION:
        raise BadDescription(
            f"kernel boot protocol {protocol >> 8}.{protocol & 0xFF:02d}: expected 2.02 or later"
        )
    if not image[0x211] & _LOADED_HIGH:
        raise BadDescription(
            f"kernel load flags {image[0x211]:#04x} without LOADED_HIGH: this is a zImage, "
            "expected a bzImage"
        )
    setup_size = ((image[SETUP_HEADER] or _DEFAULT_SETUP_SECTORS) + 1) * _SECTOR
    kernel = image[setup_size:]
    _check_size(image, protocol, len(kernel), setup_size)
    header_end = 0x202 + image[_JUMP_OFFSET]
    fields = _Fields(image[:header_end], protocol)
    _refuse_64_bit(fields, kernel)
    relocatable = bool(fields.byte(0x205, 0x234))
    return BzImage(
        protocol=protocol,
        setup_header=image[SETUP_HEADER:header_end],
        kernel=kernel,
        code_start=fields.dword(0x200, 0x214),
        initrd_max=fields.dword(0x203, 0x22C, _DEFAULT_INITRD_MAX),
        command_line_max=fields.dword(0x206, 0x238, _DEFAULT_COMMAND_LINE),
        relocatable=relocatable,
        alignment=_alignment(fields) if relocatable else 1,
        preferred=fields.qword(0x20A, 0x258) if protocol >= 0x20A else None,
        init_size=fields.dword(0x20A, 0x260, len(kernel)),
        version=_version(image),
    )


class _Fields:
    """Header fields by the version that brought them; older headers yield the default."""

    def __init__(self, header: bytes, protocol: int) -> None:
        self._header = header
        self._protocol = protocol

    def _get(self, code: str, since: int, offset: int, default: int) -> int:
        size = struct.calcsize(code)
        if self._protocol < since:
            return default
        if offset + size > len(self._header):
            raise BadDescription(
                f"kernel setup header ends at {len(self._header):#x}, but protocol "
                f"{self._protocol >> 8}.{self._protocol & 0xFF:02d} has a field at {offset:#x}"
            )
        return int(struct.unpack_from(code, self._header, offset)[0])

    def byte(self, since: int, offset: int, default: int = 0) -> int:
        return self._get("<B", since, offset, default)

    def word(self, since: int, offset: int, default: int = 0) -> int:
        return self._get("<H", since, offset, default)

    def dword(self, since: int, offset: int, default: int = 0) -> int:
        return self._get("<I", since, offset, default)

    def qword(self, since: int, offset: int, default: int = 0) -> int:
        return self._get("<Q", since, offset, default)


def _check_size(image: bytes, protocol: int, size: int, setup_size: int) -> None:
    # The size in 16-byte paragraphs; before 2.04 only its lower word is to be trusted.
    paragraphs = struct.unpack_from("<I", image, 0x1F4)[0]
    if protocol < 0x0204:
        paragraphs &= 0xFFFF
    if size <= 0 or (protocol >= 0x0204 and size + 15 < paragraphs * 16):
        raise BadDescription(
            f"kernel image of {len(image)} bytes is cut short: expected {setup_size} of setup "
            f"and about {max(1, paragraphs * 16)} of kernel"
        )


def _refuse_64_bit(fields: _Fields, kernel: bytes) -> None:
    start, length = fields.dword(0x208, 0x248), fields.dword(0x208, 0x24C)
    payload = kernel[start : start + min(length, 4096)]
    inflated = b""
    if payload.startswith(_GZIP):
        try:
            inflated = zlib.decompressobj(wbits=31).decompress(payload, 64)
        except zlib.error as error:
            raise BadDescription(f"kernel's gzip payload is damaged: {error}") from error
    if fields.word(0x20C, 0x236) & _64_BIT or inflated.startswith(_ELF_CLASS_64):
        raise BadDescription("kernel is a 64-bit one: only 32-bit kernels can be started")


def _alignment(fields: _Fields) -> int:
    alignment = fields.dword(0x205, 0x230)
    smallest = fields.byte(0x20A, 0x235)
    if smallest:
        alignment = min(alignment, 1 << smallest)
    if alignment == 0 or alignment & (alignment - 1):
        raise BadDescription(f"kernel alignment {alignment:#x}: expected a power of two")
    return alignment


def _version(image: bytes) -> str:
    offset = _word(image, 0x20E)
    if not offset:
        return ""
    text = image[offset + 0x200 : offset + 0x200 + 256]
    return text.split(b"\0", 1)[0].decode("ascii", "replace")


def _word(image: bytes, offset: int) -> int:
    return int(struct.unpack_from("<H", image, offset)[0])
