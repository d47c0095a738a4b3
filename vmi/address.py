"""Address kinds as distinct types: a guest-physical address is not a guest-virtual one."""

from typing import NewType

__all__ = [
    "PAGE_MASK",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "GuestPhysical",
    "GuestVirtual",
    "PageFrame",
    "Port",
    "RomOffset",
]

GuestPhysical = NewType("GuestPhysical", int)
"""A byte address on the guest's memory bus."""

GuestVirtual = NewType("GuestVirtual", int)
"""A linear address as guest code uses it, before the guest's page tables."""

PageFrame = NewType("PageFrame", int)
"""A guest-physical page number: a `GuestPhysical` shifted right by `PAGE_SHIFT`."""

Port = NewType("Port", int)
"""An x86 I/O port, 0 to 0xFFFF."""

RomOffset = NewType("RomOffset", int)
"""A byte offset from the start of a ROM image."""

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_SIZE - 1
