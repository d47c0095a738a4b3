"""What a device sees of the interrupt controller: one wire that it drives."""

from typing import Protocol

__all__ = ["InterruptLine", "LooseLine"]


class InterruptLine(Protocol):
    """An interrupt request wire; a device assigns to `level`, true is a request.

    Driving it to the level it has already changes nothing.
    """

    level: bool


class LooseLine:
    """A wire that leads nowhere, but remembers its level."""

    def __init__(self) -> None:
        self.level = False
