"""The exit port: a guest says that it is done and whether it is content (QEMU isa-debug-exit)."""

from collections.abc import Callable

from vmi.address import Port
from vmm.core.outcome import Outcome, OutcomeKind

__all__ = ["EXIT_PORT", "EXIT_PORT_COUNT", "ExitPort"]

EXIT_PORT = Port(0x501)
EXIT_PORT_COUNT = 4


class ExitPort:
    """Ends the run: 0 is content, anything else is the code of the check that failed."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.on_exit: Callable[[], None] = lambda: None

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
