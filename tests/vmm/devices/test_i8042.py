import pytest

from vmm.devices.i8042 import I8042, I8042_COMMAND_PORT, I8042_DATA_PORT
from vmm.devices.lines import LooseLine
from vmm.devices.port92 import CONTROL_PORT_A, ControlPortA


class Board:
    def __init__(self) -> None:
        self.line = LooseLine()
        self.resets: list[str] = []
        self.chip = I8042(self.line, self.resets.append)

    def status(self) -> int:
        return self.chip.read(I8042_COMMAND_PORT, 1)

    def data(self) -> int:
        return self.chip.read(I8042_DATA_PORT, 1)

    def command(self, value: int, *operands: int) -> None:
        self.chip.write(I8042_COMMAND_PORT, 1, value)
        for operand in operands:
            self.chip.write(I8042_DATA_PORT, 1, operand)


@pytest.fixture
def board() -> Board:
    return Board()


def test_quiet_at_first(board: Board) -> None:
    assert board.status() == 0x14
    assert board.data() == 0
    assert not board.line.level


@pytest.mark.parametrize(
    ("command", "answer"),
    [(0xAA, 0x55), (0xAB, 0x00), (0x20, 0x45), (0xC0, 0x80), (0xD0, 0x03), (0xE0, 0x00)],
)
def test_commands_with_an_answer(board: Board, command: int, answer: int) -> None:
    board.command(command)
    assert board.status() == 0x1D, "output full, last write was a command"
    assert board.line.level
    assert board.data() == answer
    assert not board.line.level
    assert not board.status() & 1
    assert board.data() == answer, "the buffer keeps its byte"


def test_command_byte_and_ram(board: Board) -> None:
    board.command(0x60, 0x74)
    assert board.chip.mode == 0x74
    board.command(0x20)
    assert not board.line.level, "the interrupt is off now"
    assert board.data() == 0x74
    board.command(0x7F, 0xAB)
    board.command(0x3F)
    assert board.data() == 0xAB


def test_operand_counts_once(board: Board) -> None:
    board.command(0x60, 0x44)
    assert not board.status() & 0x08
    board.chip.write(I8042_DATA_PORT, 1, 0xED)
    assert board.chip.mode == 0x44


def test_a_command_cancels_a_missing_operand(board: Board) -> None:
    board.command(0x60)
    board.command(0xAD)
    board.chip.write(I8042_DATA_PORT, 1, 0)
    assert board.chip.mode == 0x45


def test_keyboard_enable(board: Board) -> None:
    board.command(0xAD)
    assert board.chip.mode & 0x10
    board.command(0xAE)
    assert not board.chip.mode & 0x10


def test_there_is_no_keyboard(board: Board) -> None:
    board.chip.write(I8042_DATA_PORT, 1, 0xF2)
    assert board.status() & 0x41 == 0x41, "a timeout"
    assert board.data() == 0xFE


def test_there_is_no_mouse_port(board: Board) -> None:
    """What Linux tries: loop a byte, test the port, switch it off and look."""
    board.command(0xD3, 0x5A)
    assert board.status() & 0x21 == 0x01, "not from the mouse"
    board.data()
    board.command(0xA9)
    assert board.data() == 0x01
    board.command(0xA7)
    assert not board.chip.mode & 0x20
    board.command(0xA8)
    board.command(0xD4, 0xF2)
    assert board.status() & 0x61 == 0x41
    assert board.data() == 0xFE


def test_answers_wait_their_turn(board: Board) -> None:
    board.command(0xD2, 0x11)
    board.command(0xD2, 0x22)
    assert board.data() == 0x11
    assert board.line.level
    assert board.data() == 0x22


def test_self_test_empties_the_buffer(board: Board) -> None:
    board.command(0xD2, 0x11)
    board.command(0xAA)
    assert board.data() == 0x55
    assert not board.status() & 1


@pytest.mark.parametrize("value", [0xFE, 0xF0])
def test_reset_by_pulse(board: Board, value: int) -> None:
    board.command(value)
    assert board.resets == ["keyboard controller"]


def test_a_pulse_of_other_bits_is_no_reset(board: Board) -> None:
    board.command(0xFF)
    board.command(0xFD)
    assert not board.resets


def test_output_port(board: Board) -> None:
    board.command(0xD1, 0xDD)
    board.command(0xD0)
    assert board.data() == 0xDD
    assert not board.resets
    board.command(0xD1, 0xDC)
    assert board.resets == ["keyboard controller's output port"]


def test_unknown_commands_do_nothing(board: Board) -> None:
    board.command(0x99)
    assert not board.status() & 1
    assert board.chip.read(0x61, 1) == 0xFF
    board.chip.write(0x61, 1, 0)


def test_port_92() -> None:
    resets: list[str] = []
    port = ControlPortA(resets.append)
    assert port.read(CONTROL_PORT_A, 1) == 0x02
    port.write(CONTROL_PORT_A, 1, 0xFC)
    assert port.read(CONTROL_PORT_A, 1) == 0
    port.write(CONTROL_PORT_A, 1, 0x03)
    port.write(CONTROL_PORT_A, 1, 0x03)
    assert resets == ["port 0x92"]
    port.write(CONTROL_PORT_A, 1, 0x02)
    port.write(CONTROL_PORT_A, 1, 0x03)
    assert len(resets) == 2
    assert port.read(CONTROL_PORT_A, 2) == 0xFF03
    port.write(CONTROL_PORT_A + 1, 1, 0)
