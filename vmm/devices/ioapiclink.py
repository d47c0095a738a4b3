"""The I/O APIC at the other end of a socket, in this process or in one of its own.

Both ways the machine's end (`IoApicLink`) and the device's end (`IoApicServer`) exchange
the same packets (`vmm.core.apicmessage`). What a request leads to takes effect when
its answer is there, and not before: a device process that dies in the middle has
done nothing, is started again with the state of before, and asked again.
"""

import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable

from vmm.core.apicmessage import (
    MESSAGE_SIZE,
    ApicMessage,
    BadMessage,
    MessageFlag,
    MessageKind,
)
from vmm.core.errors import VmmError
from vmm.core.saved import CUSTOM, FLAG, Fields
from vmm.devices.ioapic import STATE_ITEMS, IoApic

__all__ = [
    "DeviceGone",
    "IoApicHere",
    "IoApicHome",
    "IoApicLink",
    "IoApicProcess",
    "IoApicServer",
    "WireTo",
]

_MOST_RESTARTS = 3
"""Of one request: a device that dies each time it is asked the same is not worth more."""
_PATIENCE_S = 10.0
"""A device process that says nothing for so long hangs."""
_MORE_THAN_A_MESSAGE = MESSAGE_SIZE + 1


class DeviceGone(VmmError):
    """The I/O APIC's process has died or hangs, and starting it again did not help."""


class IoApicServer:
    """The device's end: an I/O APIC that lives on a socket."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._told: dict[int, int] = {}
        self._device = IoApic(self._send)
        self._told.update(self._device.state())

    def _send(self, message: ApicMessage) -> None:
        self._end.send(message.pack())

    def step(self) -> bool:
        """Wait for one message and do what it says; false when the other end has closed.

        Raises `BadMessage` for what is none.
        """
        packet = self._end.recv(_MORE_THAN_A_MESSAGE)
        if not packet:
            return False
        message = ApicMessage.unpack(packet)
        value = 0
        match message.kind:
            case MessageKind.STATE:
                try:
                    self._device.set_state(message.index, message.value)
                except ValueError as error:
                    raise BadMessage(str(error)) from None
                self._told[message.index] = message.value
                return True
            case MessageKind.LINE:
                self._device.set_line(message.index, level=bool(message.flags & MessageFlag.ASSERT))
            case MessageKind.EOI:
                self._device.end_of_interrupt(message.vector)
            case MessageKind.READ:
                value = self._device.read(message.index)
            case MessageKind.WRITE:
                self._device.write(message.index, message.value)
            case _:
                raise BadMessage(f"{message.kind.name} message to an I/O APIC")
        for item, now in self._device.state():
            if self._told[item] != now:
                self._told[item] = now
                self._send(ApicMessage(MessageKind.STATE, index=item, value=now))
        self._send(ApicMessage(MessageKind.ANSWER, value=value))
        return True

    def serve(self) -> None:
        """Go on until the other end closes."""
        while self.step():
            pass


class IoApicHome(ABC):
    """Where an I/O APIC lives."""

    @abstractmethod
    def start(self) -> socket.socket:
        """A new device without state; answers the machine's end of its socket."""

    @abstractmethod
    def give_time(self) -> None:
        """A request is on its way: let the device do its work."""

    @abstractmethod
    def stop(self) -> None:
        """No more of it."""


class IoApicHere(IoApicHome):
    """In this process and thread: it works when it is given time."""

    def __init__(self) -> None:
        self._ends: list[socket.socket] = []
        self._server: IoApicServer | None = None

    def start(self) -> socket.socket:
        """A pair of sockets with the device at one end."""
        self.stop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ends = [ours, theirs]
        self._server = IoApicServer(theirs)
        return ours

    def give_time(self) -> None:
        """One message."""
        if self._server is not None:
            self._server.step()

    def stop(self) -> None:
        """Close both ends."""
        for end in self._ends:
            end.close()


class IoApicProcess(IoApicHome):
    """In a process of its own. `process` is the present one, None before the first start."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._ours: socket.socket | None = None

    def start(self) -> socket.socket:
        """A new process; the old one is ended, if it lives."""
        self.stop()
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(_PATIENCE_S)
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 - ourselves, and a number
                [sys.executable, "-m", "vmm.devices.ioapicprocess", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        return self._ours

    def give_time(self) -> None:
        """It has its own."""

    def stop(self) -> None:
        """Close the socket, which ends a process that works; end one that does not."""
        if self._ours is not None:
            self._ours.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class IoApicLink:
    """The machine's end: a device in memory, wires, and a listener for EOIs.

    `deliver` takes messages to the local APICs. `restarts` counts the times that
    the device had to be started again.
    """

    SAVED = Fields(
        {CUSTOM: "_state"},
        wiring="_home _deliver _end",
        host="restarts",
    )

    def __init__(self, home: IoApicHome, deliver: Callable[[ApicMessage], object]) -> None:
        self._home = home
        self._deliver = deliver
        self._state: dict[int, int] = {}
        self._end = home.start()
        self.restarts = 0

    def _save_state(self) -> list[list[int]]:
        """For `vmm.core.saved`."""
        return [[item, value] for item, value in self._state.items()]

    def _load_state(self, value: list[list[int]]) -> None:
        """The same; the device starts afresh."""
        state = {int(item): int(number) for item, number in value}
        for item, number in state.items():
            if not 0 <= item < STATE_ITEMS or not 0 <= number < 1 << 64:
                raise ValueError(f"I/O APIC state item {item} = {number}")
        self.restore(state)

    def memory_read(self, address: int, size: int) -> int:
        """A register; only whole ones can be loaded."""
        if size != 4 or address & 3:
            return 0
        return self._ask(ApicMessage(MessageKind.READ, index=address & 0xFFF))

    def memory_write(self, address: int, size: int, value: int) -> None:
        """A register; only whole ones can be stored."""
        if size == 4 and not address & 3:
            self._ask(ApicMessage(MessageKind.WRITE, index=address & 0xFFF, value=value))

    def set_line(self, number: int, *, level: bool) -> None:
        """Drive input `number`, 0-23: true is a request."""
        flags = MessageFlag.ASSERT if level else MessageFlag.NONE
        self._ask(ApicMessage(MessageKind.LINE, flags=flags, index=number))

    def end_of_interrupt(self, vector: int) -> None:
        """A local APIC has ended a level-triggered interrupt."""
        self._ask(ApicMessage(MessageKind.EOI, vector=vector))

    def close(self) -> None:
        """Let the device go."""
        self._home.stop()

    def state(self) -> dict[int, int]:
        """{item: value} of what the device's state is, by what it has said; for `restore`."""
        return dict(self._state)

    def restore(self, state: dict[int, int]) -> None:
        """Start the device afresh in this state."""
        self._state = dict(state)
        self._start()

    def _ask(self, request: ApicMessage) -> int:
        """Make a request and see to all that follows; answers the value.

        Raises `DeviceGone` when the device dies each time it is asked.
        """
        for attempt in range(_MOST_RESTARTS + 1):
            if attempt:
                self.restarts += 1
                self._start()
            try:
                interrupts, state, value = self._exchange(request)
            except (OSError, EOFError):
                continue
            self._state.update(state)
            for interrupt in interrupts:
                self._deliver(interrupt)
            return value
        raise DeviceGone(
            f"the I/O APIC died {_MOST_RESTARTS + 1} times over one {request.kind.name}"
        )

    def _exchange(self, request: ApicMessage) -> tuple[list[ApicMessage], dict[int, int], int]:
        interrupts: list[ApicMessage] = []
        state: dict[int, int] = {}
        self._end.send(request.pack())
        self._home.give_time()
        while True:
            packet = self._end.recv(_MORE_THAN_A_MESSAGE)
            if not packet:
                raise EOFError
            message = ApicMessage.unpack(packet)
            match message.kind:
                case MessageKind.INTERRUPT:
                    interrupts.append(message)
                case MessageKind.STATE:
                    state[message.index] = message.value
                case MessageKind.ANSWER:
                    return interrupts, state, message.value
                case _:
                    raise BadMessage(f"{message.kind.name} message from an I/O APIC")

    def _start(self) -> None:
        """A new device in the state of the old one."""
        self._end = self._home.start()
        try:
            for item, value in self._state.items():
                self._end.send(ApicMessage(MessageKind.STATE, index=item, value=value).pack())
                self._home.give_time()
        except OSError:
            # The next request finds that out again.
            return


class WireTo:
    """One input of an I/O APIC at the end of a link, beside the 8259s' if they have it too."""

    SAVED = Fields(
        {FLAG: "_level"},
        wiring="_link _number",
    )

    def __init__(self, link: IoApicLink, number: int) -> None:
        self._link = link
        self._number = number
        self._level = False

    @property
    def level(self) -> bool:
        """Is the wire high, a request?"""
        return self._level

    @level.setter
    def level(self, level: bool) -> None:
        if level != self._level:
            self._level = level
            self._link.set_line(self._number, level=level)
