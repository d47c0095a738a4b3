"""The I/O APIC of a PC (Intel 82093AA data sheet, 290566): 24 inputs, a message for each request.

A wire says whether it asks; the polarity bit is kept and means nothing, as in QEMU and
KVM. An edge that comes while its input is masked is lost, as on the part.
"""

from collections.abc import Callable, Iterator

from vmi.address import GuestPhysical
from vmm.core.apicmessage import ApicMessage, DeliveryMode, MessageFlag, MessageKind

__all__ = [
    "IOAPIC_ADDRESS",
    "IOAPIC_ID",
    "IOAPIC_INPUTS",
    "IOAPIC_VERSION",
    "STATE_ITEMS",
    "IoApic",
    "input_of_irq",
]

IOAPIC_ADDRESS = GuestPhysical(0xFEC00000)
IOAPIC_INPUTS = 24
IOAPIC_VERSION = 0x11
IOAPIC_ID = 8
"""After reset; the local APICs have the numbers below."""

_TIMER_INPUT = 2
_REGISTERS_OFFSET = 0xFF
_ID, _TABLE = 0x00, 0x10

_LOGICAL, _STATUS, _REMOTE_IRR, _LEVEL, _MASKED = 1 << 11, 1 << 12, 1 << 14, 1 << 15, 1 << 16
_WRITABLE = 0xFF00000000000000 | 0x1FFFF & ~_STATUS & ~_REMOTE_IRR
_LOW, _HIGH = 0xFFFFFFFF, 0xFFFFFFFF00000000

# Items of state behind those of the redirection table.
_STATE_WIRES, _STATE_SELECT, _STATE_ID = IOAPIC_INPUTS, IOAPIC_INPUTS + 1, IOAPIC_INPUTS + 2
STATE_ITEMS = IOAPIC_INPUTS + 3


def input_of_irq(irq: int) -> int:
    """The input that an ISA interrupt is wired to: its own, but 2 for the timer's.

    Input 0 is the 8259s' output.
    """
    return _TIMER_INPUT if irq == 0 else irq


class IoApic:
    """One I/O APIC; `send` takes its messages to the local APICs."""

    def __init__(self, send: Callable[[ApicMessage], object]) -> None:
        self._send = send
        self._entries = [_MASKED] * IOAPIC_INPUTS
        self._wires = 0
        self._select = 0
        self._id = IOAPIC_ID

    # ---- wires

    def set_line(self, number: int, *, level: bool) -> None:
        """Drive input `number`, 0-23: true is a request."""
        bit = 1 << number
        rises = level and not self._wires & bit
        self._wires = self._wires | bit if level else self._wires & ~bit
        if rises:
            self._request(number, edge=True)

    def _request(self, number: int, *, edge: bool) -> None:
        """Send what an input asks for, if it may."""
        entry = self._entries[number]
        if entry & _MASKED:
            return
        flags = MessageFlag.ASSERT
        if entry & _LOGICAL:
            flags |= MessageFlag.LOGICAL
        try:
            delivery = DeliveryMode(entry >> 8 & 7)
        except ValueError:
            return
        # Only these two are ever level-triggered (data sheet, section 3.2.4).
        if entry & _LEVEL and delivery in {DeliveryMode.FIXED, DeliveryMode.LOWEST_PRIORITY}:
            if entry & _REMOTE_IRR:
                return
            self._entries[number] |= _REMOTE_IRR
            flags |= MessageFlag.LEVEL
        elif not edge:
            return
        self._send(
            ApicMessage(
                MessageKind.INTERRUPT,
                delivery,
                flags,
                vector=entry & 0xFF,
                destination=entry >> 56,
            )
        )

    def end_of_interrupt(self, vector: int) -> None:
        """A local APIC has ended a level-triggered interrupt; whoever still asks asks again."""
        for number, entry in enumerate(self._entries):
            if entry & _REMOTE_IRR and entry & 0xFF == vector:
                self._entries[number] = entry & ~_REMOTE_IRR
                self._ask_by_level(number)

    def _ask_by_level(self, number: int) -> None:
        if self._wires >> number & 1:
            self._request(number, edge=False)

    # ---- registers

    def read(self, offset: int) -> int:
        """The dword at an offset into the device's page."""
        match offset & _REGISTERS_OFFSET:
            case 0x00:
                return self._select
            case 0x10:
                return self._read_selected()
            case _:
                return 0

    def write(self, offset: int, value: int) -> None:
        """Store to the dword at an offset into the device's page."""
        match offset & _REGISTERS_OFFSET:
            case 0x00:
                self._select = value & 0xFF
            case 0x10:
                self._write_selected(value)

    def _read_selected(self) -> int:
        match self._select:
            case 0x00 | 0x02:
                return self._id << 24
            case 0x01:
                return (IOAPIC_INPUTS - 1) << 16 | IOAPIC_VERSION
        number, half = divmod(self._select - _TABLE, 2)
        if not 0 <= number < IOAPIC_INPUTS:
            return 0
        return self._entries[number] >> 32 * half & _LOW

    def _write_selected(self, value: int) -> None:
        if self._select == _ID:
            self._id = value >> 24 & 0xF
        number, half = divmod(self._select - _TABLE, 2)
        if not 0 <= number < IOAPIC_INPUTS:
            return
        before = self._entries[number]
        written = before & _LOW | value << 32 if half else before & _HIGH | value
        entry = written & _WRITABLE | before & _REMOTE_IRR
        if not entry & _LEVEL:
            entry &= ~_REMOTE_IRR
        self._entries[number] = entry
        if entry & _LEVEL:
            self._ask_by_level(number)

    # ---- state

    def state(self) -> Iterator[tuple[int, int]]:
        """(item, value) of all there is: table, wires, selected register, ID."""
        yield from enumerate(self._entries)
        yield _STATE_WIRES, self._wires
        yield _STATE_SELECT, self._select
        yield _STATE_ID, self._id

    def set_state(self, item: int, value: int) -> None:
        """Take on one item; raises `ValueError` for one that does not exist."""
        if 0 <= item < IOAPIC_INPUTS:
            self._entries[item] = value & (_WRITABLE | _REMOTE_IRR)
        elif item == _STATE_WIRES:
            self._wires = value & (1 << IOAPIC_INPUTS) - 1
        elif item == _STATE_SELECT:
            self._select = value & 0xFF
        elif item == _STATE_ID:
            self._id = value & 0xF
        else:
            raise ValueError(f"I/O APIC state item {item}: expected 0 to {_STATE_ID}")
