import pytest

from vmm.devices.chipset import IdeFunction
from vmm.devices.lines import LooseLine
from vmm.devices.msi import MsiCapability, MsiLine

CONTROL, ADDRESS, DATA = 0x80, 0x84, 0x88
ENABLE, TWO_GRANTED = 1 << 16, 1 << 20


class Bench:
    """An IDE function with its two interrupts, and the messages that came of them."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        msi = MsiCapability(2, lambda address, data: self.sent.append((address, data)))
        self.function = IdeFunction(msi)
        self.wires = (LooseLine(), LooseLine())
        self.lines: list[MsiLine] = [msi.line(wire) for wire in self.wires]
        self.function.config_write(0x04, 0x0005)
        self.function.config_write(ADDRESS, 0xFEE01003)
        self.function.config_write(DATA, 0xABCD4051)

    def pulse(self, number: int) -> None:
        self.lines[number].level = True
        self.lines[number].level = False


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_capability_is_found(bench: Bench) -> None:
    read = bench.function.config_read
    assert read(0x04) == 0x00100005
    assert read(0x34) == CONTROL
    assert read(CONTROL) == 0x00020005, "MSI, the last one, asks for two messages"
    assert (read(ADDRESS), read(DATA)) == (0xFEE01000, 0x4051)
    bench.function.config_write(CONTROL, 0xFFFFFFFF)
    assert read(CONTROL) == 0x00130005, "as many are granted as were asked for"


def test_without_it_nothing_is_there() -> None:
    function = IdeFunction()
    assert (function.config_read(0x04), function.config_read(0x34)) == (1, 0)


def test_wires_until_it_is_enabled(bench: Bench) -> None:
    bench.lines[0].level = True
    assert (bench.wires[0].level, bench.sent) == (True, [])


def test_messages_once_it_is(bench: Bench) -> None:
    bench.function.config_write(CONTROL, ENABLE | TWO_GRANTED)
    bench.pulse(0)
    bench.pulse(1)
    bench.lines[1].level = True
    bench.lines[1].level = True
    assert bench.sent == [(0xFEE01000, 0x4050), (0xFEE01000, 0x4051), (0xFEE01000, 0x4051)]
    assert not bench.wires[1].level


def test_one_message_for_both(bench: Bench) -> None:
    bench.function.config_write(CONTROL, ENABLE)
    bench.pulse(1)
    assert bench.sent == [(0xFEE01000, 0x4051)]


def test_no_bus_master_no_message(bench: Bench) -> None:
    bench.function.config_write(0x04, 0x0001)
    bench.function.config_write(CONTROL, ENABLE)
    bench.pulse(0)
    assert bench.sent == []


def test_a_request_that_stands_is_not_lost(bench: Bench) -> None:
    bench.lines[0].level = True
    bench.function.config_write(CONTROL, ENABLE)
    assert (bench.wires[0].level, len(bench.sent)) == (False, 1)
    bench.function.config_write(CONTROL, ENABLE | TWO_GRANTED)
    assert len(bench.sent) == 1
    bench.function.config_write(CONTROL, 0)
    assert bench.wires[0].level


def test_how_many_there_can_be() -> None:
    with pytest.raises(ValueError, match="3 messages: expected a power of two up to 32"):
        MsiCapability(3, lambda _address, _data: None)
