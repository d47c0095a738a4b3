"""Who gets a message of the APIC bus."""

from collections.abc import Callable

import pytest

from vmm.core.apicbus import ApicBus
from vmm.core.apicmessage import ApicMessage, DeliveryMode, MessageFlag, MessageKind
from vmm.core.localapic import LocalApic
from vmm.core.timers import Timers

TPR, EOI, LDR, SVR, ICR, ICR_HIGH = 0x80, 0xB0, 0xD0, 0xF0, 0x300, 0x310


class Board:
    """Four processors with logical IDs 1, 2, 4, 8."""

    def __init__(self) -> None:
        self.bus = ApicBus()
        self.calls: list[tuple[int, str]] = []
        self.apics = [LocalApic(n, n == 0, Timers(), lambda: 0, self.bus) for n in range(4)]
        for number, apic in enumerate(self.apics):
            self.bus.attach(apic)
            apic.write(SVR, 0x1FF)
            apic.write(LDR, 1 << (24 + number))
            apic.on_nmi = self.hears(number, "nmi")
            apic.on_init = self.hears(number, "init")
            apic.on_startup = lambda page, number=number: self.calls.append(
                (number, f"startup {page:#x}")
            )

    def hears(self, number: int, what: str) -> Callable[[], None]:
        return lambda: self.calls.append((number, what))

    def pending(self) -> list[int]:
        return [number for number, apic in enumerate(self.apics) if apic.pending]

    def command(self, sender: int, low: int, destination: int = 0) -> None:
        self.apics[sender].write(ICR_HIGH, destination << 24)
        self.apics[sender].write(ICR, low)


@pytest.fixture
def board() -> Board:
    return Board()


def interrupt(
    vector: int,
    destination: int,
    flags: MessageFlag = MessageFlag.ASSERT,
    delivery: DeliveryMode = DeliveryMode.FIXED,
) -> ApicMessage:
    return ApicMessage(
        MessageKind.INTERRUPT, delivery, flags, vector=vector, destination=destination
    )


@pytest.mark.parametrize(
    ("destination", "flags", "meant"),
    [
        (2, MessageFlag.ASSERT, [2]),
        (0xFF, MessageFlag.ASSERT, [0, 1, 2, 3]),
        (9, MessageFlag.ASSERT, []),
        (0x0A, MessageFlag.ASSERT | MessageFlag.LOGICAL, [1, 3]),
        (0xFF, MessageFlag.ASSERT | MessageFlag.LOGICAL, [0, 1, 2, 3]),
    ],
)
def test_fixed(board: Board, destination: int, flags: MessageFlag, meant: list[int]) -> None:
    assert board.bus.deliver(interrupt(0x41, destination, flags)) == len(meant)
    assert board.pending() == meant


def test_the_lowest_priority_wins_and_equals_take_turns(board: Board) -> None:
    logical = MessageFlag.ASSERT | MessageFlag.LOGICAL
    board.apics[0].write(TPR, 0x30)
    winners = []
    for vector in (0x41, 0x51, 0x61, 0x71):
        message = interrupt(vector, 0x0F, logical, DeliveryMode.LOWEST_PRIORITY)
        assert board.bus.deliver(message) == 1
        winner = next(
            number
            for number, apic in enumerate(board.apics)
            if apic.read(0x200 + 16 * (vector >> 5)) >> (vector & 31) & 1
        )
        winners.append(winner)
    assert winners == [1, 2, 3, 1]


def test_the_lowest_priority_does_not_go_to_one_that_is_off(board: Board) -> None:
    for apic in board.apics[:3]:
        apic.write(SVR, 0xFF)
    message = interrupt(0x41, 0xFF, delivery=DeliveryMode.LOWEST_PRIORITY)
    assert board.bus.deliver(message) == 1
    assert board.pending() == [3]
    board.apics[3].write(SVR, 0xFF)
    assert board.bus.deliver(message) == 0


@pytest.mark.parametrize(
    ("low", "destination", "meant"),
    [
        (0x00041, 3, [3]),
        (0x00841, 0x05, [0, 2]),
        (0x40041, 3, [1]),
        (0x80041, 3, [0, 1, 2, 3]),
        (0xC0041, 3, [0, 2, 3]),
        # With a shorthand the destination and its mode mean nothing.
        (0xC0841, 2, [0, 2, 3]),
    ],
)
def test_commands(board: Board, low: int, destination: int, meant: list[int]) -> None:
    board.command(1, low, destination)
    assert board.pending() == meant


def test_starting_the_others(board: Board) -> None:
    board.command(0, 0xC4500)
    board.command(0, 0xC8500)
    board.command(0, 0xC469F)
    assert board.calls == [
        *((n, "init") for n in (1, 2, 3)),
        *((n, "startup 0x9f") for n in (1, 2, 3)),
    ]


def test_starting_one(board: Board) -> None:
    board.command(0, 0x0C500, 2)
    board.command(0, 0x00608, 2)
    board.command(0, 0x00400, 2)
    assert board.calls == [(2, "init"), (2, "startup 0x8"), (2, "nmi")]


def test_the_end_of_a_level_triggered_interrupt_reaches_listeners(board: Board) -> None:
    heard: list[int] = []
    board.bus.listen(heard.append)
    board.bus.deliver(interrupt(0x41, 1, MessageFlag.ASSERT | MessageFlag.LEVEL))
    board.bus.deliver(interrupt(0x51, 2))
    for apic in board.apics[1:3]:
        apic.acknowledge()
        apic.write(EOI, 0)
    assert heard == [0x41]


def test_a_message_signalled_interrupt(board: Board) -> None:
    assert board.bus.msi(0xFEE02000, 0x61) == 1
    assert board.pending() == [2]
    assert board.apics[2].acknowledge() == 0x61


def test_only_interrupts_are_delivered(board: Board) -> None:
    with pytest.raises(ValueError, match="EOI message on the bus"):
        board.bus.deliver(ApicMessage(MessageKind.EOI, vector=0x41))
