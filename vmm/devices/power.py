"""The exit port: a guest says that it is done and whether it is content (QEMU isa-debug-exit)."""

from collections.abc import Callable
from dataclasses import astuple

from vmi.address import Port
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.core.saved import CUSTOM, Fields

__all__ = ["EXIT_PORT", "EXIT_PORT_COUNT", "ExitPort"]

EXIT_PORT = Port(0x501)
EXIT_PORT_COUNT = 4


class ExitPort:
    """Ends the run: 0 is content, anything else is the code of the check that failed."""

    SAVED = Fields(
        {CUSTOM: "outcome"},
        wiring="on_exit",
    )

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.on_exit: Callable[[], None] = lambda: None

    def _save_outcome(self) -> list[str] | None:
        """For `vmm.core.saved`."""
        return None if self.outcome is None else list(astuple(self.outcome))

    def _load_outcome(self, value: list[str] | None) -> None:
        """The same."""
        self.outcome = None if value is None else Outcome(OutcomeKind(value[0]), str(value[1]))

    def read(self, _port: int, size: int) -> int:
        """Nothing to read."""
        return (1 << (8 * size)) - 1

    def write(self, _port: int, _size: int, value: int) -> None:
        """Take the verdict; the first one counts."""
        if self.outcome is None:
            if value == 0:
                self.outcome = Outcome(OutcomeKind.PASSED)
            else:
                self.outcome = Outcome(OutcomeKind.FAILED, f"the guest's check {value} failed")
        self.on_exit()
