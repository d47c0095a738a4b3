"""Types on the guest's serial port what comes in on stdin, while the guest waits for it."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vmirom.terminal import single_keys
from vmm.core.run.stop import Stop
from vmm.machine import Machine

__all__ = ["typing_on"]

_QUIET = 3
"""Halts in a row, without a byte of output between, that make a guest one that waits."""
_PATIENCE_NS = 250_000_000
"""The longest wait for a key: Ctrl-C is not heard meanwhile."""


class _Typist:
    """Feeds one machine's serial port.

    A line is typed only while the guest is idle and listens. So a script on stdin meets
    the guest at the same points in every run, and the counts repeat.
    """

    def __init__(self, machine: Machine, *, show: bool) -> None:
        self._machine = machine
        self._halts = 0
        self._slept_until = 0
        self._shows = show
        self._terminal = sys.stdin.isatty()
        machine.pc.on_serial = self._show

    def _show(self, data: bytes) -> None:
        self._halts = 0
        if self._shows:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def look(self) -> None:
        """The guest is out of the engine: type if it waits.

        Raises KeyboardInterrupt when stdin has ended and the guest waits for more.
        """
        uart = self._machine.pc.uart
        if self._machine.vcpu.stop_reason != Stop.HALTED:
            return
        self._halts += 1
        if self._halts < _QUIET or not uart.listening or uart.waiting:
            return
        data = self._read(self._machine.vm.now())
        if data:
            self._halts = 0
            uart.feed(data)

    def _read(self, now: int) -> bytes:
        """A line of a script; the keys that come while an idle guest at `now` sleeps.

        On a terminal its sleep takes about the time that it takes in the guest.
        """
        if not self._terminal:
            line = sys.stdin.buffer.readline()
            if not line:
                raise KeyboardInterrupt
            return line
        asleep = min(now - self._slept_until, _PATIENCE_NS)
        self._slept_until = now
        if not select.select([sys.stdin], [], [], asleep / 1e9)[0]:
            return b""
        return os.read(sys.stdin.fileno(), 4096)


@contextmanager
def typing_on(machine: Machine, *, show: bool = True) -> Iterator[_Typist]:
    """A typist for the machine; a terminal hands over single keys, unechoed, meanwhile.

    With `show` the guest's bytes go to stdout as they come. Ctrl-C still ends the run.
    """
    typist = _Typist(machine, show=show)
    with single_keys():
        yield typist
