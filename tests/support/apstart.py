"""The page in which another CPU of a tiny guest starts."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import TinyGuest

LOAD, TRAMPOLINE = 0x100000, 0x8000
MARKER, MARK = 0x100, 0xA5A5A5A5
"""Where in the page the CPU stores what, as Linux does."""


def trampoline(guest: TinyGuest) -> bytes:
    """Real mode to `ap_start`, with a store to its own page on the way."""
    code = bytes.fromhex(
        "8cc8"  # mov %cs, %ax
        "8ed8"  # mov %ax, %ds
        "fa"  # cli
        "66c7060001a5a5a5a5"  # movl $MARK, MARKER
        "660f01164000"  # lgdtl 0x40
        "31c0"  # xor %ax, %ax
        "40"  # inc %ax
        "0f01f0"  # lmsw %ax
        "66ea"  # ljmpl
    ) + struct.pack("<IH", guest.labels["ap_start"], 8)
    page = bytearray(MARKER + 4)
    page[: len(code)] = code
    pointer = guest.labels["gdt_pointer"] - LOAD
    page[0x40:0x46] = guest.data[pointer : pointer + 6]
    return bytes(page)
