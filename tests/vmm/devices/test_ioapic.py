"""The I/O APIC as a device: table, wires, messages; then at the other end of a socket."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.core.apicmessage import ApicMessage, BadMessage, DeliveryMode, MessageFlag, MessageKind
from vmm.devices.ioapic import IOAPIC_ADDRESS, IoApic, input_of_irq
from vmm.devices.ioapiclink import (
    DeviceGone,
    IoApicHere,
    IoApicHome,
    IoApicLink,
    IoApicProcess,
    WireTo,
)

MASKED, LEVEL, LOGICAL, REMOTE_IRR = 0x10000, 0x8000, 0x800, 0x4000


class Board:
    """An I/O APIC and what it sent."""

    def __init__(self) -> None:
        self.sent: list[ApicMessage] = []
        self.device = IoApic(self.sent.append)

    def select(self, register: int) -> None:
        self.device.write(0, register)

    def set(self, number: int, low: int, high: int = 0) -> None:
        self.select(0x11 + 2 * number)
        self.device.write(0x10, high)
        self.select(0x10 + 2 * number)
        self.device.write(0x10, low)

    def low(self, number: int) -> int:
        self.select(0x10 + 2 * number)
        return self.device.read(0x10)

    def vectors(self) -> list[int]:
        vectors = [message.vector for message in self.sent]
        self.sent.clear()
        return vectors


@pytest.fixture
def board() -> Board:
    return Board()


def test_registers_after_reset(board: Board) -> None:
    def read(register: int) -> int:
        board.select(register)
        return board.device.read(0x10)

    assert read(0) == read(2) == 8 << 24
    assert read(1) == 0x170011
    assert [read(0x10 + n) for n in range(48)] == [MASKED, 0] * 24
    assert read(0x40) == read(0xFF) == 0


def test_what_can_be_written(board: Board) -> None:
    board.set(5, 0xFFFFFFFF, 0xFFFFFFFF)
    assert board.low(5) == 0x1AFFF, "status and remote IRR are not software's"
    board.select(0x11 + 2 * 5)
    assert board.device.read(0x10) == 0xFF000000
    board.select(0)
    board.device.write(0x10, 0xFFFFFFFF)
    assert board.device.read(0x10) == 0x0F000000
    board.select(1)
    board.device.write(0x10, 0)
    assert board.device.read(0x10) == 0x170011
    assert board.device.read(0) == 1


def test_an_edge_is_a_message(board: Board) -> None:
    board.set(4, LOGICAL | 0x100 | 0x41, 0x03000000)
    board.device.set_line(4, level=True)
    board.device.set_line(4, level=True)
    assert board.sent == [
        ApicMessage(
            MessageKind.INTERRUPT,
            DeliveryMode.LOWEST_PRIORITY,
            MessageFlag.ASSERT | MessageFlag.LOGICAL,
            vector=0x41,
            destination=3,
        )
    ]
    board.device.set_line(4, level=False)
    board.device.set_line(4, level=True)
    assert len(board.sent) == 2


def test_an_edge_under_a_mask_is_lost(board: Board) -> None:
    board.set(4, MASKED | 0x41)
    board.device.set_line(4, level=True)
    board.set(4, 0x41)
    assert board.sent == []
    board.device.set_line(4, level=False)
    board.device.set_line(4, level=True)
    assert board.vectors() == [0x41]


def test_a_level_asks_until_it_falls(board: Board) -> None:
    board.set(10, LEVEL | 0x51)
    board.device.set_line(10, level=True)
    assert board.low(10) == LEVEL | REMOTE_IRR | 0x51
    assert board.sent[0].is_level
    assert board.vectors() == [0x51]
    board.device.end_of_interrupt(0x52)
    assert board.vectors() == []
    board.device.end_of_interrupt(0x51)
    assert board.vectors() == [0x51], "the wire is still high"
    board.device.set_line(10, level=False)
    board.device.set_line(10, level=True)
    assert board.vectors() == [], "not before the end of the last"
    board.device.end_of_interrupt(0x51)
    assert board.vectors() == [0x51]
    board.device.set_line(10, level=False)
    board.device.end_of_interrupt(0x51)
    assert board.vectors() == []
    assert board.low(10) == LEVEL | 0x51


def test_a_level_under_a_mask_is_heard_afterwards(board: Board) -> None:
    board.set(10, MASKED | LEVEL | 0x51)
    board.device.set_line(10, level=True)
    assert board.vectors() == []
    board.set(10, LEVEL | 0x51)
    assert board.vectors() == [0x51]


def test_switching_to_edge_and_back_forgets_remote_irr(board: Board) -> None:
    """What kernels do to get rid of a remote IRR that nobody ends."""
    board.set(10, LEVEL | 0x51)
    board.device.set_line(10, level=True)
    board.set(10, MASKED | 0x51)
    assert board.low(10) == MASKED | 0x51


@pytest.mark.parametrize(
    ("mode", "sent"),
    [(0, True), (1, True), (2, True), (3, False), (4, True), (5, True), (6, True), (7, True)],
)
def test_delivery_modes(board: Board, mode: int, *, sent: bool) -> None:
    board.set(3, mode << 8 | 0x41)
    board.device.set_line(3, level=True)
    assert [message.delivery for message in board.sent] == ([mode] if sent else [])


def test_only_fixed_and_lowest_are_by_level(board: Board) -> None:
    board.set(3, LEVEL | 0x400)
    board.device.set_line(3, level=True)
    assert not board.sent[0].is_level
    assert board.low(3) == LEVEL | 0x400


def test_isa_interrupts_have_their_own_inputs() -> None:
    assert [input_of_irq(irq) for irq in (0, 1, 4, 14)] == [2, 1, 4, 14]


# ---- at the other end of a socket


@pytest.fixture(params=[IoApicHere, IoApicProcess])
def link(request) -> Iterator[tuple[IoApicLink, list[ApicMessage], IoApicHome]]:
    delivered: list[ApicMessage] = []
    home = request.param()
    link = IoApicLink(home, delivered.append)
    yield link, delivered, home
    link.close()


def set_entry(link: IoApicLink, number: int, low: int) -> None:
    link.memory_write(IOAPIC_ADDRESS, 4, 0x10 + 2 * number)
    link.memory_write(IOAPIC_ADDRESS + 0x10, 4, low)


def test_over_a_link(link) -> None:
    link, delivered, _ = link
    wire = WireTo(link, 10)
    set_entry(link, 10, LEVEL | 0x51)
    wire.level = True
    assert [message.vector for message in delivered] == [0x51]
    assert link.memory_read(IOAPIC_ADDRESS + 0x10, 4) == LEVEL | REMOTE_IRR | 0x51
    link.end_of_interrupt(0x51)
    assert len(delivered) == 2
    wire.level = False
    assert not wire.level
    link.end_of_interrupt(0x51)
    assert len(delivered) == 2
    # Only whole registers are there.
    link.memory_write(IOAPIC_ADDRESS, 1, 0)
    assert link.memory_read(IOAPIC_ADDRESS, 4) == 0x24
    assert link.memory_read(IOAPIC_ADDRESS, 2) == link.memory_read(IOAPIC_ADDRESS + 1, 4) == 0


def test_a_killed_device_goes_on_where_it_was() -> None:
    delivered: list[ApicMessage] = []
    home = IoApicProcess()
    link = IoApicLink(home, delivered.append)
    try:
        set_entry(link, 10, LEVEL | 0x51)
        link.set_line(10, level=True)
        for _ in range(2):
            assert home.process is not None
            home.process.kill()
            home.process.wait()
            assert link.memory_read(IOAPIC_ADDRESS + 0x10, 4) == LEVEL | REMOTE_IRR | 0x51
            link.end_of_interrupt(0x51)
        assert link.restarts == 2
        assert [message.vector for message in delivered] == [0x51] * 3
    finally:
        link.close()


def test_a_device_that_dies_over_the_same_request_is_given_up() -> None:
    class Mortal(IoApicProcess):
        def give_time(self) -> None:
            assert self.process is not None
            self.process.kill()
            self.process.wait()

    link = IoApicLink(Mortal(), lambda _message: None)
    try:
        with pytest.raises(DeviceGone, match="died 4 times over one LINE"):
            link.set_line(1, level=True)
    finally:
        link.close()


def test_a_death_in_the_middle_leaves_nothing_half_done() -> None:
    """It died after the interrupt and before the answer: one interrupt, not two or none."""
    delivered: list[ApicMessage] = []

    class CutShort(IoApicHere):
        cut = False

        def give_time(self) -> None:
            super().give_time()
            if self.cut:
                # What it had to say gets through up to the second message.
                self.cut = False
                ours, _ = self._ends
                first = ours.recv(64)
                assert ApicMessage.unpack(first).kind is MessageKind.INTERRUPT
                for end in self._ends:
                    end.close()

    home = CutShort()
    link = IoApicLink(home, delivered.append)
    set_entry(link, 4, 0x41)
    home.cut = True
    link.set_line(4, level=True)
    assert [message.vector for message in delivered] == [0x41]
    assert link.restarts == 1
    link.close()


def test_state_moves_to_another_link() -> None:
    delivered: list[ApicMessage] = []
    first = IoApicLink(IoApicHere(), delivered.append)
    set_entry(first, 10, LEVEL | 0x51)
    first.set_line(10, level=True)
    second = IoApicLink(IoApicHere(), delivered.append)
    second.restore(first.state())
    first.close()
    second.end_of_interrupt(0x51)
    assert [message.vector for message in delivered] == [0x51, 0x51]
    second.close()


requests = st.one_of(
    st.tuples(st.just("line"), st.integers(0, 23), st.booleans()),
    st.tuples(st.just("eoi"), st.integers(0, 255), st.just(0)),
    st.tuples(st.just("write"), st.sampled_from([0, 0x10]), st.integers(0, 0x1FFFF)),
    st.tuples(st.just("read"), st.sampled_from([0, 0x10, 0x40]), st.just(0)),
)


def carry_out(device, what: str, first: int, second: int) -> int:
    if what == "line":
        device.set_line(first, level=bool(second))
    elif what == "eoi":
        device.end_of_interrupt(first)
    elif what == "write":
        write: Callable[[int, int], None] = device.write
        write(first, second)
    else:
        return int(device.read(first))
    return 0


class Linked:
    """A link, with the device's own methods."""

    def __init__(self, sent: list[ApicMessage]) -> None:
        self.link = IoApicLink(IoApicHere(), sent.append)
        self.set_line = self.link.set_line
        self.end_of_interrupt = self.link.end_of_interrupt

    def write(self, offset: int, value: int) -> None:
        self.link.memory_write(IOAPIC_ADDRESS + offset, 4, value)

    def read(self, offset: int) -> int:
        return self.link.memory_read(IOAPIC_ADDRESS + offset, 4)


@given(st.lists(requests, max_size=40), st.integers(0, 40))
def test_a_link_with_a_restart_changes_nothing(steps: list, restart: int) -> None:
    direct, linked = [], []
    device, other = IoApic(direct.append), Linked(linked)
    for number, step in enumerate(steps):
        if number == restart:
            other.link.restore(other.link.state())
        assert carry_out(device, *step) == carry_out(other, *step)
    assert direct == linked
    other.link.close()


def test_a_stranger_at_the_other_end_is_refused() -> None:
    class Stranger(IoApicHere):
        def give_time(self) -> None:
            self._ends[1].send(b"hello")

    link = IoApicLink(Stranger(), lambda _message: None)
    with pytest.raises(BadMessage, match="5 bytes"):
        link.set_line(1, level=True)
    link.close()
