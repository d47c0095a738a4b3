"""How a run ended."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Outcome", "OutcomeKind"]


class OutcomeKind(StrEnum):
    """Stable names; scripts rely on them."""

    PASSED = "passed"
    """The guest said that it is content."""
    FAILED = "failed"
    """The guest's own check failed; the detail carries its code."""
    REBOOT = "reboot"
    """The guest reset the machine."""
    PANIC = "panic"
    """Linux said so."""
    HALTED = "halted"
    """HLT with interrupts off, or with nothing left that could wake the guest."""
    TRIPLE_FAULT = "triple_fault"
    LIMIT = "limit"
    """The instruction limit was reached."""
    UNSUPPORTED = "unsupported"
    """The guest used something that this machine does not emulate."""
    INTERRUPTED = "interrupted"
    """The user stopped the run."""
    ENGINE_FAILURE = "engine_failure"
    DEVICE_FAILURE = "device_failure"
    """The code of a plugged-in device went wrong."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run, with a detail for people."""

    kind: OutcomeKind
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Did the guest end as it wanted to?"""
        return self.kind in {OutcomeKind.PASSED, OutcomeKind.REBOOT}

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else str(self.kind)
