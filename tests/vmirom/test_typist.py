import io
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vmirom.typist import typing_on
from vmm.core.stop import Stop
from vmm.machine import Machine


class FakeUart:
    """A serial port that remembers what was typed."""

    def __init__(self) -> None:
        self.listening = True
        self.waiting = 0
        self.typed = b""

    def feed(self, data: bytes) -> None:
        self.typed += data


@pytest.fixture(name="machine")
def fixture_machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    stdin = io.TextIOWrapper(io.BytesIO(b"first\nsecond\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    pc = SimpleNamespace(uart=FakeUart(), on_serial=None)
    return SimpleNamespace(pc=pc, vcpu=SimpleNamespace(stop_reason=Stop.HALTED))


def test_a_line_at_a_time_once_the_guest_is_idle(machine: Any) -> None:
    with typing_on(cast("Machine", machine), show=False) as typist:
        typist.look()
        typist.look()
        assert machine.pc.uart.typed == b""
        typist.look()
        assert machine.pc.uart.typed == b"first\n"
        typist.look()
        assert machine.pc.uart.typed == b"first\n"


def test_a_guest_that_prints_is_not_idle(machine: Any) -> None:
    with typing_on(cast("Machine", machine), show=False) as typist:
        for _ in range(10):
            typist.look()
            typist.look()
            machine.pc.on_serial(b".")
        assert machine.pc.uart.typed == b""


@pytest.mark.parametrize("change", ["running", "deaf", "behind"])
def test_nothing_is_typed_into_the_void(machine: Any, change: str) -> None:
    if change == "running":
        machine.vcpu.stop_reason = Stop.DEADLINE
    elif change == "deaf":
        machine.pc.uart.listening = False
    else:
        machine.pc.uart.waiting = 1
    with typing_on(cast("Machine", machine), show=False) as typist:
        for _ in range(10):
            typist.look()
    assert machine.pc.uart.typed == b""


def test_the_end_of_stdin_ends_the_run(machine: Any) -> None:
    with typing_on(cast("Machine", machine), show=False) as typist:
        for _ in range(8):
            typist.look()
        with pytest.raises(KeyboardInterrupt):
            typist.look()
        assert machine.pc.uart.typed == b"first\nsecond\n"
