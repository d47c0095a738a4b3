"""Interrupt commands, and for whom a message is."""

import pytest

from localapics import DFR, ICR, ICR_HIGH, LDR, make


@pytest.mark.parametrize(
    ("low", "sent"),
    [
        (0x00041, True),
        (0x00141, True),
        (0x00941, True),
        (0x04500, True),
        (0x0469F, True),
        (0x00400, True),
        (0xC0041, True),
        (0xC4500, True),
        (0x80041, True),
        # INIT de-assert, as kernels send it after the INIT: nobody is reset by it.
        (0x08500, False),
        (0xC8500, False),
        # To oneself or to all, by shorthand, only a fixed one can be sent.
        (0x80400, False),
        (0x40500, False),
        (0x80500, False),
        (0x40641, False),
        (0x80141, False),
        # Delivery modes that cannot be commanded.
        (0x00341, False),
        (0x00741, False),
    ],
)
def test_commands(low: int, *, sent: bool) -> None:
    apic, heard, _ = make()
    apic.write(ICR_HIGH, 0x03000000)
    apic.write(ICR, low)
    assert heard.commands == ([(low, 3)] if sent else [])


def test_to_oneself_by_shorthand() -> None:
    apic, heard, _ = make()
    apic.write(ICR, 0x40041)
    assert heard.commands == []
    assert apic.acknowledge() == 0x41


# ---- destinations


@pytest.mark.parametrize(
    ("ldr", "dfr", "destination", "meant"),
    [
        (0x04, 0xF, 0x04, True),
        (0x04, 0xF, 0x0C, True),
        (0x04, 0xF, 0x03, False),
        (0x00, 0xF, 0x0F, False),
        (0x00, 0xF, 0xFF, True),
        (0x24, 0x0, 0x24, True),
        (0x24, 0x0, 0x2F, True),
        (0x24, 0x0, 0x23, False),
        (0x24, 0x0, 0x34, False),
        (0x24, 0x0, 0xFF, True),
    ],
)
def test_logical_destinations(ldr: int, dfr: int, destination: int, *, meant: bool) -> None:
    apic, _, _ = make()
    apic.write(LDR, ldr << 24)
    apic.write(DFR, dfr << 28 | 0x0FFFFFFF)
    assert apic.is_destination(logical=True, destination=destination) == meant


def test_physical_destinations() -> None:
    apic, _, _ = make(number=5)
    assert [n for n in range(256) if apic.is_destination(logical=False, destination=n)] == [5, 255]
