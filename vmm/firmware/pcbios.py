"""A PC BIOS image: what it is, and where the machine shows it."""

from vmm.core.errors import BadDescription

__all__ = ["RESET_BASE", "RESET_OFFSET", "RESET_SEGMENT", "check_bios", "is_bios"]

RESET_SEGMENT, RESET_BASE, RESET_OFFSET = 0xF000, 0xFFFF0000, 0xFFF0
"""CS at reset, its hidden base, which is 64 KiB below 4 GiB, and IP (SDM vol. 3, 9.1.4)."""

_UNIT = 1 << 16
_MOST = 4 * _UNIT
_RESET = 0x10
_FAR_JUMP = 0xEA


def is_bios(image: bytes) -> bool:
    """Is this 64 to 256 KiB with a far jump into segment 0xF000 at the reset vector?"""
    if not image or len(image) % _UNIT or len(image) > _MOST:
        return False
    reset = image[-_RESET:]
    return reset[0] == _FAR_JUMP and int.from_bytes(reset[3:5], "little") == RESET_SEGMENT


def check_bios(image: bytes, command_line: str, initrd: bytes | None) -> None:
    """Raise `BadDescription` for what firmware has no use for."""
    if not is_bios(image):
        raise BadDescription(f"{len(image)} bytes are no PC BIOS: no far jump at the reset vector")
    if command_line or initrd is not None:
        raise BadDescription("a PC BIOS takes no command line and no initrd")
