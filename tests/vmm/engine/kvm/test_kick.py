"""Kicks: by time, from another thread, early, and never left behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from vmm.core.errors import EngineFailure
from vmm.engine.kvm.kick import _SIGNAL
from vmm.engine.kvm.uapi import Exit

MakeSandbox = Callable[[bytes], Any]

SPIN = b"\xeb\xfe"  # jmp .
PATIENCE_NS = 20_000_000_000


def test_after_a_time(sandbox: MakeSandbox) -> None:
    box = sandbox(SPIN)
    with box.vcpu.kicker as kicker:
        start = time.monotonic_ns()
        kicker.after(20_000_000)
        assert box.enter() == Exit.INTR
        assert 20_000_000 <= time.monotonic_ns() - start < PATIENCE_NS


def test_a_kick_before_entry_is_not_lost(sandbox: MakeSandbox) -> None:
    box = sandbox(SPIN)
    with box.vcpu.kicker as kicker:
        kicker.now()
        assert box.enter() == Exit.INTR
        assert box.enter() == Exit.INTR, "it stays until it is settled"
        kicker.settle()
        kicker.after(1_000_000)
        assert box.enter() == Exit.INTR


def test_from_another_thread(sandbox: MakeSandbox) -> None:
    box = sandbox(SPIN)
    with box.vcpu.kicker as kicker:
        kicker.after(PATIENCE_NS)
        other = threading.Timer(0.05, kicker.now)
        other.start()
        start = time.monotonic_ns()
        assert box.enter() == Exit.INTR
        assert time.monotonic_ns() - start < PATIENCE_NS
        other.join()


def test_the_thread_is_left_as_it_was(sandbox: MakeSandbox) -> None:
    box = sandbox(SPIN)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with box.vcpu.kicker as kicker:
        kicker.after(1)
        assert box.enter() == Exit.INTR
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert _SIGNAL not in signal.sigpending()
    box.vcpu.kicker.now()  # nobody runs: nothing to kick, and nobody to be killed


def test_a_vcpu_belongs_to_its_thread(sandbox: MakeSandbox) -> None:
    box = sandbox(SPIN)
    seen: list[Exception] = []

    def elsewhere() -> None:
        try:
            box.vcpu.check_thread()
        except EngineFailure as failure:
            seen.append(failure)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "belongs to the thread that created it" in str(seen[0])
    box.vcpu.check_thread()


@pytest.mark.parametrize("blocked", [True, False])
def test_the_users_own_signals_still_interrupt(sandbox: MakeSandbox, *, blocked: bool) -> None:
    box = sandbox(SPIN)
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: got.append(number))
    try:
        if blocked:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        with box.vcpu.kicker as kicker:
            kicker.after(PATIENCE_NS if not blocked else 50_000_000)
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            timer = threading.Timer(
                0.05,
                lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1),
            )
            timer.start()
            assert box.enter() == Exit.INTR
            timer.join()
        assert bool(got) is not blocked
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGUSR1, before)
