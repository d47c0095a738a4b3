"""The APIC bus: carries messages to the local APICs they are meant for."""

from collections.abc import Callable, Iterable

from vmm.core.apicmessage import (
    BROADCAST,
    ApicMessage,
    DeliveryMode,
    MessageFlag,
    MessageKind,
    message_signalled,
)
from vmm.core.localapic import LocalApic
from vmm.core.saved import U32, Fields

__all__ = ["ApicBus"]

_LOGICAL = 0x800
_SHORTHAND_SHIFT = 18
_ALL, _ALL_BUT_SELF = 2, 3


class ApicBus:
    """All local APICs of a machine, and the I/O APICs that must hear of EOIs.

    What it delivers takes effect before it returns. It takes no lock: where processors
    run at the same time, their machine lets one in after the other.
    """

    SAVED = Fields(
        {U32: "_latest"},
        wiring="_locals _listeners",
    )

    def __init__(self) -> None:
        self._locals: list[LocalApic] = []
        self._listeners: list[Callable[[int], None]] = []
        self._latest = 0

    def attach(self, apic: LocalApic) -> None:
        """Put a local APIC on the bus."""
        self._locals.append(apic)

    def listen(self, on_end_of_interrupt: Callable[[int], None]) -> None:
        """Tell of each EOI for a level-triggered vector."""
        self._listeners.append(on_end_of_interrupt)

    def deliver(self, message: ApicMessage, sender: LocalApic | None = None) -> int:
        """Take an INTERRUPT to all who are its destination; answers how many accepted it.

        `sender` is left out, if given. Raises `ValueError` for another kind.
        """
        if message.kind is not MessageKind.INTERRUPT:
            raise ValueError(f"{message.kind.name} message on the bus, expected INTERRUPT")
        return self._deliver(
            message, [apic for apic in self._meant_by(message) if apic is not sender]
        )

    def msi(self, address: int, data: int) -> int:
        """A message-signalled interrupt: deliver what a store of `data` to `address` means.

        Raises `BadMessage` for an address that belongs to no APIC, or a delivery mode that
        does not exist.
        """
        return self.deliver(message_signalled(address, data))

    def command(self, sender: LocalApic, low: int, destination: int) -> None:
        """Carry out an interrupt command: the low dword of ICR, and its destination."""
        shorthand = low >> _SHORTHAND_SHIFT & 3
        flags = MessageFlag.ASSERT
        if low & _LOGICAL and shorthand not in {_ALL, _ALL_BUT_SELF}:
            flags |= MessageFlag.LOGICAL
        message = ApicMessage(
            MessageKind.INTERRUPT,
            DeliveryMode(low >> 8 & 7),
            flags,
            vector=low & 0xFF,
            destination=BROADCAST if shorthand in {_ALL, _ALL_BUT_SELF} else destination,
        )
        self.deliver(message, sender if shorthand == _ALL_BUT_SELF else None)

    def end_of_interrupt(self, vector: int) -> None:
        """A local APIC has ended a level-triggered interrupt."""
        for listener in self._listeners:
            listener(vector)

    def _meant_by(self, message: ApicMessage) -> Iterable[LocalApic]:
        return (
            apic
            for apic in self._locals
            if apic.is_destination(message.is_logical, message.destination)
        )

    def _deliver(self, message: ApicMessage, meant: list[LocalApic]) -> int:
        if message.delivery is DeliveryMode.LOWEST_PRIORITY:
            chosen = self._least_busy(meant)
            meant = [] if chosen is None else [chosen]
        return sum(
            apic.accept(message.delivery, message.vector, message.is_level) for apic in meant
        )

    def _least_busy(self, meant: list[LocalApic]) -> LocalApic | None:
        """The lowest processor priority wins; equals take turns, which keeps runs repeatable."""
        able = [apic for apic in meant if apic.is_enabled()]
        if not able:
            return None
        count = len(self._locals)
        position = {id(apic): number for number, apic in enumerate(self._locals)}
        best = min(
            able,
            key=lambda apic: (
                apic.processor_priority() >> 4,
                (position[id(apic)] - self._latest - 1) % count,
            ),
        )
        self._latest = position[id(best)]
        return best
