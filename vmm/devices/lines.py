"""What a device sees of the interrupt controller: one wire that it drives."""

from typing import Protocol

from vmm.core.saved import FLAG, PARTS, Fields

__all__ = ["InterruptLine", "LooseLine", "SharedLine"]


class InterruptLine(Protocol):
    """An interrupt request wire; a device assigns to `level`, true is a request.

    Driving it to the level it has already changes nothing.
    """

    level: bool


class LooseLine:
    """A wire that leads nowhere, but remembers its level."""

    SAVED = Fields(
        {FLAG: "level"},
    )

    def __init__(self) -> None:
        self.level = False


class SharedLine:
    """One wire to several inputs."""

    SAVED = Fields(
        {FLAG: "_level", PARTS: "_inputs"},
    )

    def __init__(self, *inputs: InterruptLine) -> None:
        self._inputs = inputs
        self._level = False

    @property
    def level(self) -> bool:
        """Is the wire high, a request?"""
        return self._level

    @level.setter
    def level(self, level: bool) -> None:
        self._level = level
        for line in self._inputs:
            line.level = level
