"""Tell what kind of guest an image is, and plan its start."""

from vmm.core.errors import BadDescription
from vmm.firmware.boot import BootPlan
from vmm.firmware.bzimage import is_bzimage
from vmm.firmware.elf import is_elf
from vmm.firmware.linux import plan_linux
from vmm.firmware.multiboot import is_multiboot, plan_multiboot
from vmm.firmware.pcbios import is_bios

__all__ = ["plan_guest"]


def plan_guest(image: bytes, memory: int, command_line: str, initrd: bytes | None) -> BootPlan:
    """How to start an image in `memory` bytes of RAM.

    Raises `BadDescription` for an image of no known kind, for one that cannot be
    started, and for an initrd where nobody would look at it.
    """
    if is_multiboot(image):
        if initrd is not None:
            raise BadDescription("an initrd is for Linux; the guest is a Multiboot image")
        return plan_multiboot(image, memory, command_line)
    if is_bzimage(image) or is_elf(image):
        return plan_linux(image, memory, command_line, initrd)
    if is_bios(image):
        raise BadDescription("a PC BIOS starts in real mode, which takes --engine kvm")
    raise BadDescription(
        "the guest is neither a Multiboot image (no header in its first 8192 bytes), "
        "nor a Linux bzImage, nor an ELF file"
    )
