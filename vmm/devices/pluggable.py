"""What a device is that another package adds: its class, and what it sees of the machine.

The how-to (docs/howto-device.md) builds one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from vmm.devices.lines import InterruptLine

__all__ = ["Board", "Device", "Option", "Plain", "Plug"]

Option = int | str
"""A value that a device's option may have."""
Plain = None | bool | int | str | list[Any] | dict[str, Any]
"""What a saved state is made of: values that JSON has."""


class Board(Protocol):
    """What a device sees of the machine that it is plugged into."""

    def now(self) -> int:
        """Virtual time in nanoseconds."""
        ...

    def at(self, when: int, callback: Callable[[], None]) -> int:
        """Call back at a virtual time, in nanoseconds; answers a key for `cancel`."""
        ...

    def cancel(self, key: int) -> None:
        """Forget a timer; no harm if it has run."""
        ...

    def line(self, irq: int) -> InterruptLine:
        """The wire of an interrupt request that the device has declared."""
        ...

    def message(self, address: int, data: int) -> None:
        """A message-signalled interrupt; without local APICs it is lost.

        Raises `BadMessage` for one that means nothing.
        """
        ...


class Device(ABC):
    """A device with declared port ranges, memory ranges, interrupt requests and options.

    `ports` are ranges of ports, `memory` ranges of guest-physical addresses in whole
    pages where no RAM is, `lines` interrupt requests 0 to 15. They are the class's, or
    set in `__init__` where they depend on an option. `options` are names and defaults: each
    is handed to `__init__` by name, as the type of its default.

    Two runs are equal only if the device takes nothing from the host: time is `board.now()`.
    Whatever its methods raise ends the run as `device_failure`.
    """

    ports: Sequence[range] = ()
    memory: Sequence[range] = ()
    lines: Sequence[int] = ()
    options: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, board: Board) -> None:
        self.board = board

    def read(self, port: int, size: int) -> int:  # noqa: ARG002 - a device overrides it
        """IN of 1, 2 or 4 bytes; bits beyond them are dropped. By default all ones."""
        return (1 << (8 * size)) - 1

    def write(self, port: int, size: int, value: int) -> None:  # noqa: B027 - may stay as it is
        """OUT of 1, 2 or 4 bytes. By default nothing happens."""

    def memory_read(self, address: int, size: int) -> int:  # noqa: ARG002 - as above
        """A load of 1, 2 or 4 bytes; bits beyond them are dropped. By default all ones."""
        return (1 << (8 * size)) - 1

    def memory_write(self, address: int, size: int, value: int) -> None:  # noqa: B027 - as above
        """A store of 1, 2 or 4 bytes. By default nothing happens."""

    @abstractmethod
    def save(self) -> dict[str, Plain]:
        """All that the guest could tell the device by, in values that JSON has."""

    @abstractmethod
    def load(self, state: Mapping[str, Any]) -> None:
        """Be as the device was that `save` described, in a machine at the same virtual time."""


@dataclass(frozen=True, slots=True)
class Plug:
    """A device to be plugged in: its class, its options, and the name it goes by."""

    device: type[Device]
    options: Mapping[str, Option] = field(default_factory=dict)
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.device.__name__
