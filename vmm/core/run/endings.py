"""What an error that ends a run is to the user: an outcome."""

from vmm.core.errors import (
    DeviceFailure,
    EngineFailure,
    TimeUp,
    TripleFault,
    Unsupported,
    VmmError,
)
from vmm.core.outcome import Outcome, OutcomeKind

__all__ = ["ENDINGS", "outcome_of"]

_KINDS: dict[type[VmmError], OutcomeKind] = {
    TimeUp: OutcomeKind.LIMIT,
    TripleFault: OutcomeKind.TRIPLE_FAULT,
    Unsupported: OutcomeKind.UNSUPPORTED,
    EngineFailure: OutcomeKind.ENGINE_FAILURE,
    DeviceFailure: OutcomeKind.DEVICE_FAILURE,
}
ENDINGS = tuple(_KINDS)
"""What a run loop catches; anything else that comes by is a defect or the caller's."""


def outcome_of(error: VmmError) -> Outcome:
    """The outcome of a run that one of `ENDINGS` has ended."""
    kind = next(kind for ending, kind in _KINDS.items() if isinstance(error, ending))
    return Outcome(kind, str(error))
