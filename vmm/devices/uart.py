"""A serial port: 8250 and 16550A (National Semiconductor PC16550D data sheet, 1995).

The wire is infinitely fast: a byte is sent as soon as it is written, and received
bytes wait on the host's side until the guest has room. A FIFO never overruns.
"""

from collections import deque
from collections.abc import Callable

from vmi.address import Port
from vmm.core.saved import FLAG, U8, U16, Fields, Numbers
from vmm.devices.bytewide import ByteWideDevice
from vmm.devices.lines import InterruptLine

__all__ = ["COM1", "UART_PORT_COUNT", "Uart"]

COM1 = Port(0x3F8)
"""The usual place of the first serial port, on IRQ 4."""
UART_PORT_COUNT = 8

_DATA, _IER, _IIR, _LCR, _MCR, _LSR, _MSR, _SCRATCH = range(8)
_FCR = _IIR

_RECEIVED, _EMPTY, _LINE_STATUS = 0x01, 0x02, 0x04
"""Interrupt enables; modem status, the fourth, never changes outside loop-back."""
_MODEM_STATUS = 0x08

_IIR_NONE, _IIR_MODEM, _IIR_EMPTY = 0x01, 0x00, 0x02
_IIR_RECEIVED, _IIR_LINE_STATUS, _IIR_TIMEOUT = 0x04, 0x06, 0x0C
_IIR_FIFOS = 0xC0

_FIFO_ENABLE, _CLEAR_RECEIVER = 0x01, 0x02
_DLAB, _BREAK = 0x80, 0x40
_OUT2, _LOOP = 0x08, 0x10
_DATA_READY, _OVERRUN, _BREAK_RECEIVED, _TRANSMITTER_EMPTY = 0x01, 0x02, 0x10, 0x60
_CONNECTED = 0xB0
"""Modem status with a terminal attached: carrier, data set ready, clear to send."""

_FIFO_SIZE = 16
_TRIGGERS = (1, 4, 8, 14)
_MOST_WAITING = 1 << 20
"""Of typed bytes in a saved machine."""


class Uart(ByteWideDevice):
    """`output` gets every byte sent; `feed` is how the host types.

    The interrupt line follows OUT2, which gates it on a PC.
    """

    SAVED = Fields(
        {
            U16: "_divisor",
            U8: "_ier _fcr _lcr _mcr _scratch _errors _modem_delta",
            FLAG: "_empty_pending",
            Numbers(8, most=_FIFO_SIZE): "_fifo",
            Numbers(8, most=_MOST_WAITING): "_waiting",
        },
        wiring="_line _output _base _readers",
        derived="_shared",
    )

    def __init__(self, line: InterruptLine, output: Callable[[bytes], None], base: int) -> None:
        self._line = line
        self._output = output
        self._base = base
        self._divisor = 1
        self._ier = 0
        self._fcr = 0
        self._lcr = 0
        self._mcr = 0
        self._scratch = 0
        self._errors = 0
        self._modem_delta = 0
        self._empty_pending = False
        self._fifo: deque[int] = deque()
        self._waiting: deque[int] = deque()
        self._shared: memoryview | None = None
        # Made once, for a driver that prints reads the line status before each byte.
        self._readers: dict[int, Callable[[], int]] = {
            _DATA: self._receive,
            _IER: lambda: self._ier,
            _IIR: self._identify,
            _LCR: lambda: self._lcr,
            _MCR: lambda: self._mcr,
            _LSR: self._line_status,
            _MSR: self._modem_status,
            _SCRATCH: lambda: self._scratch,
        }

    def feed(self, data: bytes) -> None:
        """Bytes from the host; those that do not fit yet wait."""
        self._waiting.extend(data)
        self._refill()

    shared_size = 8
    """A port filter sees the line status register, and whether reading it changes nothing."""

    def share(self, view: memoryview) -> None:
        """Keep what a port filter sees in `view` from now on."""
        self._shared = view
        self._publish()

    def _publish(self) -> None:
        if self._shared is not None:
            ready = _DATA_READY if self._fifo else 0
            self._shared[0] = _TRANSMITTER_EMPTY | self._errors | ready
            self._shared[1] = not self._errors

    @property
    def listening(self) -> bool:
        """Has the guest asked to be interrupted for received bytes?"""
        return bool(self._ier & _RECEIVED)

    @property
    def waiting(self) -> int:
        """Bytes that the guest has not read yet."""
        return len(self._waiting) + len(self._fifo)

    @property
    def divisor(self) -> int:
        """Baud rate divisor: 115200 divided by the rate."""
        return self._divisor

    def read_byte(self, port: int) -> int:
        """A register."""
        register = port - self._base
        if register in {_DATA, _IER} and self._lcr & _DLAB:
            return self._divisor >> (8 * register) & 0xFF
        reader = self._readers.get(register)
        return 0xFF if reader is None else reader()

    def write_byte(self, port: int, value: int) -> None:
        """A register."""
        register = port - self._base
        if register in {_DATA, _IER} and self._lcr & _DLAB:
            shift = 8 * register
            self._divisor = self._divisor & ~(0xFF << shift) | value << shift
            return
        if register == _DATA:
            self._send(value)
        elif register == _IER:
            # Enabling says again that the transmitter is empty; Linux tests for it.
            if value & ~self._ier & _EMPTY:
                self._empty_pending = True
            self._ier = value & 0x0F
        elif register == _FCR:
            self._set_fifos(value)
        elif register == _LCR:
            self._set_line_control(value)
        elif register == _MCR:
            self._set_modem_control(value & 0x1F)
        elif register == _SCRATCH:
            self._scratch = value
        self._settle()

    @property
    def _looped(self) -> bool:
        return bool(self._mcr & _LOOP)

    def _send(self, value: int) -> None:
        # The holding register fills and is empty again: its request goes away and comes back.
        self._empty_pending = False
        self._settle()
        if self._looped:
            self._arrive(value)
        else:
            self._output(bytes((value,)))
        self._empty_pending = True

    def _arrive(self, value: int) -> None:
        """A byte that nobody can hold back: in loop-back it may overrun."""
        if len(self._fifo) < self._depth:
            self._fifo.append(value)
            return
        self._errors |= _OVERRUN
        if not self._fcr & _FIFO_ENABLE:
            # Without FIFOs the new byte replaces the old one, with FIFOs it is lost.
            self._fifo[0] = value

    @property
    def _depth(self) -> int:
        return _FIFO_SIZE if self._fcr & _FIFO_ENABLE else 1

    def _refill(self) -> None:
        while self._waiting and len(self._fifo) < self._depth and not self._looped:
            self._fifo.append(self._waiting.popleft())
        self._settle()

    def _receive(self) -> int:
        value = self._fifo.popleft() if self._fifo else 0
        if not self._fcr & _FIFO_ENABLE:
            # One request per byte: the line falls in between.
            self._settle()
        self._refill()
        return value

    def _set_fifos(self, value: int) -> None:
        switched = (value ^ self._fcr) & _FIFO_ENABLE
        if switched or value & _CLEAR_RECEIVER:
            self._fifo.clear()
        self._fcr = value & 0xC9 if value & _FIFO_ENABLE else 0
        self._refill()

    def _set_line_control(self, value: int) -> None:
        started = value & ~self._lcr & _BREAK
        self._lcr = value
        if started and self._looped:
            self._errors |= _BREAK_RECEIVED
            self._arrive(0)

    def _set_modem_control(self, value: int) -> None:
        before = self._modem_lines()
        self._mcr = value
        after = self._modem_lines()
        fallen_ring = before & ~after & 0x40
        self._modem_delta |= (before ^ after) >> 4 & 0x0B | fallen_ring >> 4
        self._refill()

    def _modem_lines(self) -> int:
        """CTS, DSR, RI and DCD in bits 4-7; in loop-back RTS, DTR, OUT1 and OUT2."""
        if not self._looped:
            return _CONNECTED
        rts, dtr, outs = self._mcr >> 1 & 1, self._mcr & 1, self._mcr >> 2 & 3
        return rts << 4 | dtr << 5 | outs << 6

    def _line_status(self) -> int:
        errors, self._errors = self._errors, 0
        self._settle()
        return _TRANSMITTER_EMPTY | errors | (_DATA_READY if self._fifo else 0)

    def _modem_status(self) -> int:
        delta, self._modem_delta = self._modem_delta, 0
        self._settle()
        return self._modem_lines() | delta

    def _cause(self) -> int:
        """The most important request that is enabled, as IIR names it."""
        if self._errors and self._ier & _LINE_STATUS:
            return _IIR_LINE_STATUS
        if self._fifo and self._ier & _RECEIVED:
            full = not self._fcr or len(self._fifo) >= _TRIGGERS[self._fcr >> 6]
            # On a wire without delays the timeout of four characters is over at once.
            return _IIR_RECEIVED if full else _IIR_TIMEOUT
        if self._empty_pending and self._ier & _EMPTY:
            return _IIR_EMPTY
        if self._modem_delta and self._ier & _MODEM_STATUS:
            return _IIR_MODEM
        return _IIR_NONE

    def _identify(self) -> int:
        cause = self._cause()
        if cause == _IIR_EMPTY:
            self._empty_pending = False
            self._settle()
        return cause | (_IIR_FIFOS if self._fcr else 0)

    def _settle(self) -> None:
        self._publish()
        gated = self._mcr & _OUT2 and not self._looped
        self._line.level = bool(gated) and self._cause() != _IIR_NONE
