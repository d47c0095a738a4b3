import io
import select
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vmirom.typist import typing_on
from vmm.core.run.stop import Stop
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
    vm = SimpleNamespace(now=lambda: 0)
    return SimpleNamespace(pc=pc, vm=vm, vcpu=SimpleNamespace(stop_reason=Stop.HALTED))


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


def test_on_a_terminal_a_guest_sleeps_as_long_as_it_thinks(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []

    def wait(*arguments: Any) -> tuple[list[int], list[int], list[int]]:
        waits.append(arguments[3])
        return [], [], []

    times = iter((2_000_000_000, 2_010_000_000, 2_030_000_000, 3_000_000_000))
    machine.vm.now = lambda: next(times)
    monkeypatch.setattr(select, "select", wait)
    with typing_on(cast("Machine", machine), show=False) as typist:
        monkeypatch.setattr(typist, "_terminal", True)
        for _ in range(6):
            typist.look()
    assert waits == [0.25, 0.01, 0.02, 0.25]
    assert machine.pc.uart.typed == b""


def test_the_end_of_stdin_ends_the_run(machine: Any) -> None:
    with typing_on(cast("Machine", machine), show=False) as typist:
        for _ in range(8):
            typist.look()
        with pytest.raises(KeyboardInterrupt):
            typist.look()
        assert machine.pc.uart.typed == b"first\nsecond\n"
