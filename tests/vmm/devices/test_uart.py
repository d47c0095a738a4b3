from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices.linebatch import LineBatch
from vmm.devices.lines import LooseLine
from vmm.devices.uart import COM1, Uart

RBR, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH = range(8)
FCR = IIR
RECEIVED, EMPTY, STATUS, MODEM = 1, 2, 4, 8


class Port:
    """A serial port with its wire and what came out of it."""

    def __init__(self) -> None:
        self.line = LooseLine()
        self.sent = bytearray()
        self.uart = Uart(self.line, self.sent.extend, COM1)

    def get(self, register: int) -> int:
        return self.uart.read(COM1 + register, 1)

    def put(self, register: int, value: int) -> None:
        self.uart.write(COM1 + register, 1, value)


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def ready(port: Port) -> Port:
    """As a driver leaves it: FIFOs on with a trigger of 8, OUT2 gating the interrupt."""
    port.put(FCR, 0x87)
    port.put(MCR, 0x0B)
    return port


def test_divisor_latch(port: Port) -> None:
    port.put(LCR, 0x83)
    port.put(0, 0x0C)
    port.put(1, 0x01)
    assert port.uart.divisor == 0x010C
    assert (port.get(0), port.get(1)) == (0x0C, 0x01)
    port.put(LCR, 0x03)
    assert port.get(IER) == 0
    assert port.get(LCR) == 0x03
    assert port.sent == b""


def test_sends_at_once(port: Port) -> None:
    for byte in b"ok\n":
        assert port.get(LSR) & 0x60 == 0x60
        port.put(0, byte)
    assert port.sent == b"ok\n"


def test_scratch_and_reserved_bits(port: Port) -> None:
    port.put(SCRATCH, 0x5A)
    assert port.get(SCRATCH) == 0x5A
    port.put(IER, 0xFF)
    assert port.get(IER) == 0x0F
    port.put(MCR, 0xFF)
    assert port.get(MCR) == 0x1F


def test_what_linux_probes_for(port: Port) -> None:
    assert port.get(IIR) == 0x01
    port.put(FCR, 0x01)
    assert port.get(IIR) & 0xC0 == 0xC0, "a 16550A"
    port.put(FCR, 0x00)
    assert port.get(IIR) & 0xC0 == 0
    port.put(MCR, 0x1A)
    assert port.get(MSR) & 0xF0 == 0x90, "loop-back: RTS and OUT2 are CTS and DCD"


@pytest.mark.parametrize(
    ("mcr", "msr"), [(0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80), (0x1F, 0xF0)]
)
def test_loop_back_of_modem_lines(port: Port, mcr: int, msr: int) -> None:
    port.put(MCR, mcr)
    assert port.get(MSR) & 0xF0 == msr


def test_modem_changes_are_told_once(port: Port) -> None:
    port.put(MCR, 0x1F)
    port.get(MSR)
    port.put(MCR, 0x10)
    assert port.get(MSR) == 0x0F, "all four changed, the ring indicator by falling"
    assert port.get(MSR) == 0
    port.put(MCR, 0x14)
    assert port.get(MSR) == 0x40, "a rising ring indicator is not told"


def test_loop_back_of_data(port: Port) -> None:
    port.put(MCR, 0x10)
    port.put(0, 0x42)
    assert port.sent == b""
    assert port.get(LSR) & 1
    assert port.get(0) == 0x42
    assert not port.get(LSR) & 1


def test_loop_back_overruns(port: Port) -> None:
    port.put(MCR, 0x10)
    port.put(0, 1)
    port.put(0, 2)
    assert port.get(LSR) & 0x02
    assert not port.get(LSR) & 0x02, "read once"
    assert port.get(0) == 2, "without FIFOs the last byte stays"
    port.put(FCR, 1)
    for byte in range(17):
        port.put(0, byte)
    assert port.get(LSR) & 0x02
    assert [port.get(0) for _ in range(16)] == list(range(16)), "with them the first sixteen"


def test_break_in_loop_back(port: Port) -> None:
    port.put(MCR, 0x10)
    port.put(LCR, 0x43)
    assert port.get(LSR) & 0x11 == 0x11
    assert port.get(0) == 0


def test_empty_interrupt_with_each_enable(ready: Port) -> None:
    for _ in range(3):
        ready.put(IER, EMPTY)
        assert ready.line.level
        assert ready.get(IIR) == 0xC2
        assert not ready.line.level, "reading IIR takes the request back"
        assert ready.get(IIR) == 0xC1
        ready.put(IER, EMPTY)
        assert not ready.line.level, "no edge of the enable bit"
        ready.put(IER, 0)


def test_empty_interrupt_falls_and_rises_with_each_byte(port: Port) -> None:
    levels: list[bool] = []

    class Line:
        level = property(lambda _: levels[-1], lambda _, level: levels.append(level))

    uart = Uart(Line(), lambda _: None, COM1)
    uart.write(COM1 + MCR, 1, 0x08)
    uart.write(COM1 + IER, 1, EMPTY)
    levels.clear()
    uart.write(COM1, 1, 0x41)
    assert levels == [False, True]


def test_out2_gates_the_interrupt(port: Port) -> None:
    port.put(IER, EMPTY)
    assert not port.line.level
    port.put(MCR, 0x08)
    assert port.line.level
    port.put(MCR, 0x18)
    assert not port.line.level, "disconnected in loop-back"


def test_receive_without_fifo(port: Port) -> None:
    port.put(MCR, 0x08)
    port.put(IER, RECEIVED)
    port.uart.feed(b"ab")
    assert port.line.level
    assert port.get(IIR) == 0x04
    assert port.get(0) == ord("a")
    assert port.line.level, "the next one is there"
    assert port.get(0) == ord("b")
    assert not port.line.level
    assert port.get(LSR) == 0x60
    assert port.get(0) == 0


@pytest.mark.parametrize(("code", "trigger"), [(0, 1), (1, 4), (2, 8), (3, 14)])
def test_triggers(port: Port, code: int, trigger: int) -> None:
    port.put(FCR, code << 6 | 1)
    port.put(IER, RECEIVED)
    port.uart.feed(bytes(trigger - 1))
    assert port.get(IIR) == (0xCC if trigger > 1 else 0xC1)
    port.uart.feed(b"x")
    assert port.get(IIR) == 0xC4


@given(data=st.binary(max_size=200), fifo=st.booleans(), chunks=st.integers(1, 40))
def test_nothing_that_is_typed_gets_lost(data: bytes, *, fifo: bool, chunks: int) -> None:
    port = Port()
    port.put(FCR, 0x81 if fifo else 0)
    got = bytearray()
    for i in range(0, len(data), chunks):
        port.uart.feed(data[i : i + chunks])
        if port.get(LSR) & 1:
            got.append(port.get(0))
    assert port.uart.waiting == len(data) - len(got)
    while port.get(LSR) & 1:
        got.append(port.get(0))
    assert got == data


def test_priorities(ready: Port) -> None:
    ready.put(MCR, 0x1F)
    ready.put(MCR, 0x10)  # modem lines change
    for _ in range(17):
        ready.put(0, 0)  # overrun, received, empty
    ready.put(IER, 0x0F)
    assert ready.get(IIR) == 0xC6
    ready.get(LSR)
    assert ready.get(IIR) == 0xC4
    for _ in range(16):
        ready.get(0)
    assert ready.get(IIR) == 0xC2
    assert ready.get(IIR) == 0xC0
    ready.get(MSR)
    assert ready.get(IIR) == 0xC1


def test_clearing_the_receiver(ready: Port) -> None:
    ready.uart.feed(b"abc")
    ready.put(FCR, 0x83)
    assert not ready.get(LSR) & 1
    ready.uart.feed(b"d")
    assert ready.get(0) == ord("d")


def test_input_waits_during_loop_back(ready: Port) -> None:
    ready.put(MCR, 0x10)
    ready.uart.feed(b"x")
    assert not ready.get(LSR) & 1
    ready.put(MCR, 0x08)
    assert ready.get(0) == ord("x")


@pytest.fixture
def batch() -> tuple[LineBatch, list[bytes]]:
    out: list[bytes] = []
    return LineBatch(out.append), out


def test_lines(batch: tuple[LineBatch, list[bytes]]) -> None:
    lines, out = batch
    write: Callable[[bytes], None] = lines.write
    for byte in b"one\r\ntwo\nlogin: ":
        write(bytes((byte,)))
    assert out == [b"one\r\n", b"two\n"]
    lines.flush()
    lines.flush()
    assert out[2:] == [b"login: "]
    write(b"a\nb\nc")
    assert out[3:] == [b"a\nb\n"]
