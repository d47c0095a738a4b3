"""ROMs with planted faults: code is appended to our image, and get_reloc leads to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from rombuilder.assembler import assemble_text
from rombuilder.conformance.checker import Checker
from rombuilder.conformance.findings import Finding
from rombuilder.conformance.layout import PLACEMENTS
from rombuilder.conformance.native import native_code
from rombuilder.rom import Flavour, build_rom
from vmi.calls import call_named
from vmi.header import BLOCK_SIZE, GET_RELOC, VMI_INIT, checksum

IDENTITY: Final = build_rom(Flavour.IDENTITY)
STATES: Final = 6
PLACES: Final = (PLACEMENTS[0], PLACEMENTS[1], PLACEMENTS[5])

# Asked for the call it answers with the appended function, asked for others it goes on as before.
HOOK: Final = """
    cmp ${number}, %eax
    jne 2f
    call 1f
1:  pop %eax
    lea planted - 1b(%eax), %eax
    mov ${kind}, %edx
    ret
2:  .byte 0xe9
    .long {original} - {start} - (. + 4 - hook)
planted:
"""


def finished(data: bytearray) -> bytes:
    """The image with lengths and checksum made right."""
    data.extend(bytes(-len(data) % BLOCK_SIZE))
    blocks = len(data) // BLOCK_SIZE
    data[2] = blocks
    pcir = int.from_bytes(data[0x18:0x1A], "little")
    data[pcir + 0x10 : pcir + 0x12] = blocks.to_bytes(2, "little")
    data[-1] = (data[-1] - checksum(bytes(data))) & 0xFF
    return bytes(data)


def appended(entry: int, source: str) -> bytes:
    """Our image with an entry that leads to new code. `original` is the offset it led to."""
    data = bytearray(IDENTITY.data)
    start = len(data)
    original = (int.from_bytes(data[entry + 1 : entry + 5], "little") + entry + 5) & 0xFFFFFFFF
    text = "hook:\n" + source.replace("{original}", str(original)).replace("{start}", str(start))
    data += assemble_text(text).section(".text").data + b"\0"
    data[entry + 1 : entry + 5] = (start - entry - 5).to_bytes(4, "little")
    return finished(data)


def plant(call: str, source: str, kind: int | None = None) -> bytes:
    """A ROM whose `call` is the source, answered with the right kind if none is given."""
    number = int(call) if call.isdecimal() else call_named(call).number
    if kind is None:
        kind = 2 if call in {"IRET", "SYSEXIT"} else 1
    hook = HOOK.replace("{number}", str(number)).replace("{kind}", str(int(kind)))
    return appended(GET_RELOC, hook + source)


def plant_entry(entry: str, source: str) -> bytes:
    """A ROM whose vmi_init or get_reloc begins with the source."""
    offset = {"vmi_init": VMI_INIT, "get_reloc": GET_RELOC}[entry]
    jump = "\n.byte 0xe9\n.long {original} - {start} - (. + 4 - hook)\n"
    return appended(offset, source + jump)


def check_in_process(image: bytes, *calls: str, seed: int = 1) -> list[Finding]:
    """vmi_init, get_reloc and the named calls, at three places."""
    found: list[Finding] = []
    checker = Checker(image, native_code(), found.append, seed=seed)
    for place in PLACES:
        answers = checker.relocate(place)
        if answers is None:
            break
        checker.answers = checker.answers or answers
        for call in calls:
            checker.check_call(call_named(call), place, answers, range(STATES))
    return found


Plant = Callable[..., bytes]
Check = Callable[..., list[Finding]]


@pytest.fixture(name="plant")
def fixture_plant() -> Plant:
    return plant


@pytest.fixture(name="plant_entry")
def fixture_plant_entry() -> Plant:
    return plant_entry


@pytest.fixture(name="finish")
def fixture_finish() -> Callable[[bytearray], bytes]:
    return finished


@pytest.fixture(name="check")
def fixture_check() -> Check:
    return check_in_process
