"""The filters that come along answer as the devices would, byte for byte, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmi.address import Port
from vmm.core.bus import PortBus
from vmm.core.errors import BadDescription
from vmm.core.ports.filters import PortFilters
from vmm.core.timers import Timers
from vmm.devices.pit import PIT_PORT_COUNT, PIT_PORTS, Pit
from vmm.devices.port61 import CONTROL_PORT_B, ControlPortB
from vmm.devices.uart import COM1, UART_PORT_COUNT, Uart
from vmm.filters.attach import attach, load_filter, shipped_filters
from vmm.filters.program import FilterProgram, PortRange
from vmm.filters.text import assemble_text
from vmm.filters.verifier import verify

COUNTERS, CONTROL = range(0x40, 0x43), 0x43
LSR = COM1 + 5


@dataclass
class Line:
    level: bool = False


@dataclass
class Pc:
    """A PIT, port 0x61 and a serial port, with time under control and filters or none."""

    names: tuple[str, ...]
    now: int = 0
    bus: PortBus = field(default_factory=PortBus)
    filters: PortFilters = field(default_factory=PortFilters)
    timers: Timers = field(default_factory=Timers)

    def __post_init__(self) -> None:
        pit = Pit(self.timers, lambda: self.now, Line())
        self.uart = Uart(Line(), lambda _data: None, COM1)
        self.bus.register(PIT_PORTS, PIT_PORT_COUNT, pit)
        self.bus.register(CONTROL_PORT_B, 1, ControlPortB(pit))
        self.bus.register(COM1, UART_PORT_COUNT, self.uart)
        attach([load_filter(name) for name in self.names], self.bus, self.filters)

    def read(self, port: int, size: int = 1) -> int:
        if self.filters.answers(port, size, self.now):
            return int(self.filters.value)
        return self.bus.read(port, size)

    def write(self, port: int, value: int) -> None:
        self.bus.write(port, 1, value)

    def go(self, ns: int) -> None:
        target = self.now + ns
        while self.timers.next_due() <= target:
            self.now = self.timers.next_due()
            self.timers.run_due(self.now)
        self.now = target


@pytest.fixture
def both() -> tuple[Pc, Pc]:
    """The same PC without filters and with."""
    return Pc(()), Pc(("pit", "lsr"))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.sampled_from([*COUNTERS, CONTROL, CONTROL_PORT_B, LSR])),
        st.tuples(st.just("read"), st.sampled_from([*COUNTERS, CONTROL_PORT_B])),
        st.tuples(st.just("count"), st.integers(0, 3 << 16)),
        st.tuples(st.just("control"), st.integers(0, 255)),
        st.tuples(st.just("gate"), st.integers(0, 15)),
        st.tuples(st.just("go"), st.integers(0, 200_000)),
        st.tuples(st.just("go"), st.sampled_from([838, 1_000_000_000, 3600 * 10**9])),
        st.tuples(st.just("type"), st.integers(0, 255)),
        st.tuples(st.just("serial"), st.integers(0, 7 << 8 | 255)),
        st.tuples(st.just("receive"), st.just(0)),
    ),
    max_size=60,
)


def steps_of(pc: Pc, steps: list[tuple[str, int]]) -> Iterator[int]:
    for what, value in steps:
        if what == "read":
            yield pc.read(value)
        elif what == "receive":
            yield pc.read(COM1)
        elif what == "count":
            pc.write(0x40 + (value >> 16), value & 0xFF)
            if value & 1:
                pc.write(0x40 + (value >> 16), value >> 8 & 0xFF)
        elif what == "control":
            pc.write(CONTROL, value)
        elif what == "gate":
            pc.write(CONTROL_PORT_B, value)
        elif what == "type":
            pc.uart.feed(bytes((value,)))
        elif what == "serial":
            pc.write(COM1 + (value >> 8), value & 0xFF)
        else:
            pc.go(value)


@given(STEPS)
def test_whatever_is_done_the_answers_are_the_devices(steps: list[tuple[str, int]]) -> None:
    plain, filtered = Pc(()), Pc(("pit", "lsr"))
    assert list(steps_of(plain, steps)) == list(steps_of(filtered, steps))


@pytest.mark.parametrize("mode", range(6))
@pytest.mark.parametrize("access", [1, 2, 3])
def test_every_mode_is_answered(both: tuple[Pc, Pc], mode: int, access: int) -> None:
    answers = []
    for pc in both:
        pc.write(CONTROL_PORT_B, 0)
        pc.write(CONTROL, 2 << 6 | access << 4 | mode << 1)
        for byte in (0x39, 0x30)[: 2 if access == 3 else 1]:
            pc.write(0x42, byte)
        pc.write(CONTROL_PORT_B, 1)
        taken = []
        for _ in range(40):
            pc.go(3_217)
            taken.append((pc.read(0x42), pc.read(CONTROL_PORT_B)))
        answers.append(taken)
    assert answers[0] == answers[1]
    answered, passed = both[1].filters.counts(0)
    assert (answered, passed) == (80, 0)


def test_what_changes_the_device_is_the_devices(both: tuple[Pc, Pc]) -> None:
    """Latched counts and statuses, and wide reads, are passed on; then the filter goes on."""
    for pc in both:
        pc.write(CONTROL, 0x34)
        pc.write(0x40, 0)
        pc.write(0x40, 0)
        pc.go(10_000)
    pc = both[1]
    taken = []
    for pc in both:
        reads = [pc.read(0x40)]
        pc.write(CONTROL, 0x00)
        pc.go(5_000)
        reads += [pc.read(0x40), pc.read(0x40), pc.read(0x40)]
        pc.write(CONTROL, 0xC2)
        reads += [pc.read(0x40), pc.read(0x40), pc.read(0x40), pc.read(0x40, 2)]
        taken.append(reads)
    assert taken[0] == taken[1]
    # The latch freezes the count: four reads of a latched byte or status, one of two bytes.
    answered, passed = pc.filters.counts(0)
    assert passed >= 5
    assert answered >= 2


def test_line_status_with_an_error_is_the_devices(both: tuple[Pc, Pc]) -> None:
    for pc in both:
        pc.write(COM1 + 4, 0x10)
        for byte in b"ab":
            pc.write(COM1, byte)
    plain, filtered = both
    assert plain.read(LSR) & 0x02
    assert filtered.read(LSR) & 0x02
    assert filtered.filters.counts(1) == (0, 1)
    assert plain.read(LSR) == filtered.read(LSR)
    assert filtered.filters.counts(1) == (1, 1)


def test_what_is_shipped_is_verified() -> None:
    assert shipped_filters() == ["lsr", "pit"]
    for name in shipped_filters():
        assert 0 < verify(load_filter(name)) < 100


def test_what_cannot_be_attached(both: tuple[Pc, Pc]) -> None:
    pc = both[1]
    with pytest.raises(BadDescription, match="port 0x40 has a filter already"):
        attach([load_filter("pit")], pc.bus, pc.filters)
    plain = both[0]
    small = assemble_text('.section "port/0x40"\nr0 = 0\nexit\n.bss\n.zero 8\n', "small")
    with pytest.raises(BadDescription, match="has 8 bytes of state, expected at least 48"):
        attach([small], plain.bus, PortFilters())
    bad = assemble_text('.section "port/0x80"\nexit', "bad")
    with pytest.raises(BadDescription, match="filter rejected: bad:2: instruction 0"):
        attach([bad], plain.bus, PortFilters())
    with pytest.raises(BadDescription, match=r"'nothing': No such file.*expected a file or one of"):
        load_filter("nothing")


def test_ports_without_devices_need_no_state() -> None:
    one = assemble_text('.section "port/0x80"\n*(u32 *)(r1 + 16) = 5\nr0 = 1\nexit', "one")
    assert one.ports == (PortRange(Port(0x80), Port(0x80)),)
    filters = PortFilters()
    attach([one], PortBus(), filters)
    assert filters.answers(0x80, 1, 0)
    assert filters.value == 5
    assert isinstance(one, FilterProgram)
