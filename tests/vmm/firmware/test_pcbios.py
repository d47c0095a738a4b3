"""Which images are a PC BIOS."""

from __future__ import annotations

import pytest

from vmm.core.errors import BadDescription
from vmm.firmware.guest import plan_guest
from vmm.firmware.pcbios import check_bios, is_bios

RESET = b"\xea\x5b\xe0\x00\xf0".ljust(16, b"\0")


def bios(size: int = 1 << 16, reset: bytes = RESET) -> bytes:
    return bytes(size - 16) + reset


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (bios(), True),
        (bios(1 << 18), True),
        (bios(1 << 19), False),
        (bios((1 << 16) + 512), False),
        (bios(reset=bytes(16)), False),
        (bios(reset=b"\xea\x5b\xe0\x00\xe0".ljust(16, b"\0")), False),
        (b"", False),
    ],
)
def test_is_bios(image: bytes, expected: bool) -> None:
    assert is_bios(image) is expected


def test_what_firmware_has_no_use_for() -> None:
    check_bios(bios(), "", None)
    with pytest.raises(BadDescription, match="takes no command line and no initrd"):
        check_bios(bios(), "rounds=1", None)


def test_the_other_engine_says_which_can() -> None:
    with pytest.raises(BadDescription, match="a PC BIOS starts in real mode, which takes --engine"):
        plan_guest(bios(), 1 << 22, "", None)
