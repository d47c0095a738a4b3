"""What can go wrong between sources and a finished image.

Every error is a `BuildError` with a text of one line; `linker.errors.LinkError`
covers what the linker finds.
"""

from rombuilder.origin import Origin

__all__ = ["AssemblyError", "BuildError", "EncoderError", "QueueCapacityError"]


class BuildError(ValueError):
    """The sources cannot become an image."""


class AssemblyError(BuildError):
    """A statement that cannot be assembled; the text starts with file and line."""

    def __init__(self, origin: Origin, problem: str) -> None:
        super().__init__(f"{origin.place}: {problem}{origin.trail}")
        self.origin = origin
        self.problem = problem


class EncoderError(BuildError):
    """Keystone refused an instruction, or broke on it; has no place in a file yet."""


class QueueCapacityError(BuildError):
    """A batch queue of a size that the interface does not allow."""

    def __init__(self, capacity: int, limit: int) -> None:
        super().__init__(f"queue of {capacity} records: the capacity must be from 1 to {limit}")
        self.capacity = capacity
        self.limit = limit
