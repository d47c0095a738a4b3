"""The two cascaded 8259A interrupt controllers of a PC (Intel 8259A data sheet, 231468).

The trigger mode of each input comes from the ELCR registers as on Intel's south
bridges (82371 data sheet), which ignore the LTIM bit of ICW1.
"""

from collections.abc import Callable

from vmi.address import Port
from vmm.core.saved import FLAG, PART, U8, Fields, Methods
from vmm.devices.bytewide import ByteWideDevice

__all__ = [
    "ELCR_PORTS",
    "PIC_MASTER_PORTS",
    "PIC_PORT_COUNT",
    "PIC_SLAVE_PORTS",
    "Pic",
    "PicLine",
    "PicPair",
]

PIC_MASTER_PORTS = Port(0x20)
PIC_SLAVE_PORTS = Port(0xA0)
ELCR_PORTS = Port(0x4D0)
PIC_PORT_COUNT = 2
"""Each of the three ranges has two ports."""

_CASCADE = 2
"""The master's input that the slave's output is wired to."""
_NO_PRIORITY = 8
_SPURIOUS = 7

_ICW1 = 0x10
_ICW1_NEEDS_ICW4 = 0x01
_ICW1_SINGLE = 0x02
_ICW4_AUTO_EOI = 0x02
_ICW4_SPECIAL_NESTED = 0x10
_OCW3 = 0x08
_ELCR_WRITABLE = (0xF8, 0xDE)
"""Timer, keyboard, cascade, clock and coprocessor are always edge-triggered."""


class Pic:
    """One 8259A in its x86 mode.

    An edge-triggered request stands as long as its wire stays high and is taken
    back when the wire falls before it is acknowledged, as on the real part.
    """

    SAVED = Fields(
        {
            U8: "base level_triggered _wires _edges _in_service _mask _lowest",
            FLAG: "_auto_eoi _rotate_on_auto_eoi _special_mask _special_nested _read_in_service "
            "_poll",
            Methods("_set_base", "_keep_wiring", "_set_icw4"): "_initialising",
        },
    )

    def __init__(self, base: int) -> None:
        self.base = base
        self.level_triggered = 0
        self._wires = 0
        self._edges = 0
        self._in_service = 0
        self._mask = 0xFF
        self._lowest = 7
        self._auto_eoi = False
        self._rotate_on_auto_eoi = False
        self._special_mask = False
        self._special_nested = False
        self._read_in_service = False
        self._poll = False
        self._initialising: list[Callable[[int], None]] = []

    def set_wire(self, number: int, *, level: bool) -> None:
        """Drive input `number`, 0-7."""
        bit = 1 << number
        if level and not self._wires & bit:
            self._edges |= bit
        elif not level:
            self._edges &= ~bit
        self._wires = self._wires | bit if level else self._wires & ~bit

    def wire(self, number: int) -> bool:
        """Is input `number` high?"""
        return bool(self._wires >> number & 1)

    @property
    def requests(self) -> int:
        """The interrupt request register."""
        return self._edges & ~self.level_triggered | self._wires & self.level_triggered

    @property
    def output(self) -> bool:
        """Is the INT pin high?"""
        return self._winner() is not None

    def _priority(self, bits: int) -> int:
        """The best priority among `bits`: 0 is highest, 8 means none."""
        if not bits:
            return _NO_PRIORITY
        for priority in range(8):
            if bits >> self._input_at(priority) & 1:
                return priority
        return _NO_PRIORITY

    def _input_at(self, priority: int) -> int:
        return (self._lowest + 1 + priority) & 7

    def _winner(self) -> int | None:
        """The input to serve next, unless something as important is in service."""
        requests = self.requests & ~self._mask
        if not requests:
            return None
        wanted = self._priority(requests)
        blocking = self._in_service
        if self._special_mask:
            blocking &= ~self._mask
        if self._special_nested:
            blocking &= ~(1 << _CASCADE)
        return self._input_at(wanted) if wanted < self._priority(blocking) else None

    def acknowledge(self) -> int | None:
        """The INTA cycles: answers the input now in service, none when it was a false alarm."""
        winner = self._winner()
        if winner is None:
            return None
        bit = 1 << winner
        self._edges &= ~bit
        if not self._auto_eoi:
            self._in_service |= bit
        elif self._rotate_on_auto_eoi:
            self._lowest = winner
        return winner

    def read_register(self, address: int) -> int:
        """The register at address line A0."""
        if self._poll:
            self._poll = False
            winner = self.acknowledge()
            return 0 if winner is None else 0x80 | winner
        if address:
            return self._mask
        return self._in_service if self._read_in_service else self.requests

    def write_register(self, address: int, value: int) -> None:
        """A command word; which one depends on A0, the value and what came before."""
        if not address:
            if value & _ICW1:
                self._start(value)
            elif value & _OCW3:
                self._operate(value)
            else:
                self._end_of_interrupt(value)
        elif self._initialising:
            self._initialising.pop(0)(value)
        else:
            self._mask = value

    def _start(self, icw1: int) -> None:
        self._edges = 0
        self._in_service = 0
        self._mask = 0
        self._lowest = 7
        self._special_mask = False
        self._read_in_service = False
        self._rotate_on_auto_eoi = False
        self._poll = False
        self._set_icw4(0)
        self._initialising = [self._set_base]
        if not icw1 & _ICW1_SINGLE:
            self._initialising.append(self._keep_wiring)
        if icw1 & _ICW1_NEEDS_ICW4:
            self._initialising.append(self._set_icw4)

    def _set_base(self, icw2: int) -> None:
        self.base = icw2 & 0xF8

    def _keep_wiring(self, _icw3: int) -> None:
        """How the two are wired is a fact of the board, whatever ICW3 says."""

    def _set_icw4(self, icw4: int) -> None:
        self._auto_eoi = bool(icw4 & _ICW4_AUTO_EOI)
        self._special_nested = bool(icw4 & _ICW4_SPECIAL_NESTED)

    def _operate(self, ocw3: int) -> None:
        if ocw3 & 0x40:
            self._special_mask = bool(ocw3 & 0x20)
        if ocw3 & 0x02:
            self._read_in_service = bool(ocw3 & 0x01)
        self._poll = bool(ocw3 & 0x04)

    def _end_of_interrupt(self, ocw2: int) -> None:
        """OCW2: bits 7-5 are rotate, specific, end of interrupt."""
        rotate, specific, end = ocw2 & 0x80, ocw2 & 0x40, ocw2 & 0x20
        if not end:
            if specific:
                if rotate:
                    self._lowest = ocw2 & 7
            else:
                self._rotate_on_auto_eoi = bool(rotate)
            return
        if specific:
            number = ocw2 & 7
        else:
            # A level that is masked in special mask mode is not what a plain EOI means.
            priority = self._priority(
                self._in_service & ~self._mask if self._special_mask else self._in_service
            )
            if priority == _NO_PRIORITY:
                return
            number = self._input_at(priority)
        self._in_service &= ~(1 << number)
        if rotate:
            self._lowest = number


class PicLine:
    """One interrupt input of the pair."""

    SAVED = Fields(
        wiring="_pair _irq",
    )

    def __init__(self, pair: "PicPair", irq: int) -> None:
        self._pair = pair
        self._irq = irq

    @property
    def level(self) -> bool:
        """Is the wire high, a request?"""
        return self._pair.irq_level(self._irq)

    @level.setter
    def level(self, level: bool) -> None:
        self._pair.set_irq(self._irq, level=level)


class PicPair(ByteWideDevice):
    """Master and slave; an interrupt controller for the CPU, a port device for the bus.

    `on_change` hears of each change of the CPU's interrupt line. Both chips start
    as PC firmware leaves them: vectors 0x08 and 0x70, every input masked.
    """

    SAVED = Fields(
        {PART: "_master _slave", FLAG: "_pending"},
        wiring="_on_change",
    )

    def __init__(self, on_change: Callable[[bool], None] = lambda _level: None) -> None:
        self._master = Pic(0x08)
        self._slave = Pic(0x70)
        self._on_change = on_change
        self._pending = False

    def line(self, irq: int) -> PicLine:
        """The wire of interrupt request 0-15; 2 is the cascade and has none."""
        if not 0 <= irq < 16 or irq == _CASCADE:
            raise ValueError(f"IRQ {irq}: expected 0-15 without {_CASCADE}")
        return PicLine(self, irq)

    def irq_level(self, irq: int) -> bool:
        """Is the wire of interrupt request `irq` high?"""
        return (self._slave if irq & 8 else self._master).wire(irq & 7)

    def set_irq(self, irq: int, *, level: bool) -> None:
        """Drive the wire of interrupt request `irq`."""
        (self._slave if irq & 8 else self._master).set_wire(irq & 7, level=level)
        self._settle()

    @property
    def pending(self) -> bool:
        """Is the CPU's interrupt line up?"""
        return self._pending

    def acknowledge(self) -> int:
        """The vector to deliver; that of input 7 when the request went away meanwhile."""
        number = self._master.acknowledge()
        chip = self._master
        if number == _CASCADE:
            chip = self._slave
            number = chip.acknowledge()
            # INT falls after each INTA, so another request is an edge of its own.
            self._master.set_wire(_CASCADE, level=False)
        self._settle()
        return chip.base + (_SPURIOUS if number is None else number)

    def _settle(self) -> None:
        self._master.set_wire(_CASCADE, level=self._slave.output)
        if self._master.output != self._pending:
            self._pending = not self._pending
            self._on_change(self._pending)

    def _chip_at(self, port: int) -> Pic:
        return self._slave if port >= PIC_SLAVE_PORTS else self._master

    def read_byte(self, port: int) -> int:
        """A status or mask register, or an ELCR."""
        if port in {ELCR_PORTS, ELCR_PORTS + 1}:
            return (self._master, self._slave)[port - ELCR_PORTS].level_triggered
        value = self._chip_at(port).read_register(port & 1)
        self._settle()
        return value

    def write_byte(self, port: int, value: int) -> None:
        """A command word, a mask, or an ELCR."""
        if port in {ELCR_PORTS, ELCR_PORTS + 1}:
            which = port - ELCR_PORTS
            (self._master, self._slave)[which].level_triggered = value & _ELCR_WRITABLE[which]
        else:
            self._chip_at(port).write_register(port & 1, value)
        self._settle()
