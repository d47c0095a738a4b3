import pytest

from vmi.address import Port
from vmm.core.bus import NoInterrupts, PortBus, PortDevice


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def read(self, port: int, size: int) -> int:
        self.seen.append((port, size))
        return port

    def write(self, port: int, size: int, value: int) -> None:
        self.seen.append((port, size, value))


def test_ranges_end_where_they_end() -> None:
    bus, device = PortBus(), Recorder()
    assert isinstance(device, PortDevice)
    bus.register(Port(0x60), 4, device)
    assert [bus.read(port, 1) for port in (0x5F, 0x60, 0x63, 0x64)] == [0xFF, 0x60, 0x63, 0xFF]
    bus.write(0x64, 1, 5)
    bus.write(0x61, 2, 6)
    assert device.seen == [(0x60, 1), (0x63, 1), (0x61, 2, 6)]


@pytest.mark.parametrize(("size", "floating"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFFFFFF)])
def test_nobody_answers_with_ones(size: int, floating: int) -> None:
    assert PortBus().read(0x1234, size) == floating


@pytest.mark.parametrize(("first", "count"), [(0x5F, 2), (0x63, 1), (0x60, 4), (0x50, 0x100)])
def test_overlaps_are_refused(first: int, count: int) -> None:
    bus = PortBus()
    bus.register(Port(0x60), 4, Recorder())
    with pytest.raises(ValueError, match="overlap 0x0060-0x0063 of Recorder"):
        bus.register(Port(first), count, Recorder())


def test_a_late_device_is_found() -> None:
    bus = PortBus()
    assert bus.read(0x70, 1) == 0xFF
    bus.register(Port(0x70), 1, Recorder())
    assert bus.read(0x70, 1) == 0x70


def test_no_interrupts() -> None:
    assert not NoInterrupts().pending
    with pytest.raises(LookupError, match="no interrupt"):
        NoInterrupts().acknowledge()
