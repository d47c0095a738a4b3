"""What the firmware does for a ROM's 16-bit code: interrupts that return, and INT 10h that prints.

As in a PC BIOS every vector leads to code in segment 0xF000; a service that is not
there returns at once. The one that is there, INT 10h AH=0Eh ("write teletype"), puts its
character on the debug port, where the rest of the console goes.
"""

import struct

from vmi.address import GuestPhysical
from vmm.core.memory import GuestMemory
from vmm.devices.console import DEBUG_PORT

__all__ = ["install_services"]

_SEGMENT = 0xF000
_RETURN_OFFSET = 0xFF00
_VIDEO_OFFSET = 0xFF10
_VECTORS = 256
_VIDEO = 0x10

_RETURN = b"\xcf"  # iret
_TELETYPE = (
    b"\x80\xfc\x0e"  # cmp $0x0e, %ah
    b"\x75\x0a"  # jne to the iret
    b"\x3c\x0d"  # cmp $'\r', %al
    b"\x74\x06"  # je to the iret: a line of the console ends with its line feed
    b"\x52"  # push %dx
    b"\xba" + DEBUG_PORT.to_bytes(2, "little") +  # mov $port, %dx
    b"\xee"  # out %al, (%dx)
    b"\x5a"  # pop %dx
    b"\xcf"  # iret
)  # fmt: skip


def install_services(memory: GuestMemory) -> None:
    """Fill the interrupt vector table at 0, and put what it leads to below 1 MiB."""
    vectors = [(_RETURN_OFFSET, _SEGMENT)] * _VECTORS
    vectors[_VIDEO] = (_VIDEO_OFFSET, _SEGMENT)
    memory.load(GuestPhysical(0), b"".join(struct.pack("<HH", *vector) for vector in vectors))
    for offset, code in ((_RETURN_OFFSET, _RETURN), (_VIDEO_OFFSET, _TELETYPE)):
        memory.load(GuestPhysical((_SEGMENT << 4) + offset), code)
