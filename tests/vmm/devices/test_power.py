from vmm.core.outcome import Outcome, OutcomeKind
from vmm.devices.power import EXIT_PORT, ExitPort


def test_zero_is_content_and_the_first_word_counts() -> None:
    port = ExitPort()
    calls: list[None] = []
    port.on_exit = lambda: calls.append(None)
    assert port.outcome is None
    port.write(EXIT_PORT, 4, 0)
    port.write(EXIT_PORT, 4, 5)
    assert port.outcome == Outcome(OutcomeKind.PASSED)
    assert len(calls) == 2


def test_any_other_value_is_a_failed_check() -> None:
    port = ExitPort()
    port.write(EXIT_PORT, 1, 7)
    assert port.outcome == Outcome(OutcomeKind.FAILED, "the guest's check 7 failed")
    assert not port.outcome.ok
    assert str(port.outcome) == "failed: the guest's check 7 failed"


def test_reads_find_nothing() -> None:
    assert ExitPort().read(EXIT_PORT, 2) == 0xFFFF
