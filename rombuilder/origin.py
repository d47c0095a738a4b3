"""Where a statement comes from: file, line, and the macros or includes that led there."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Origin"]


@dataclass(frozen=True, slots=True)
class Origin:
    """A line of a file. `parent` is where the expansion or inclusion stands."""

    path: Path
    line: int
    parent: "Origin | None" = None
    reason: str = ""
    """What led from `parent` to here, such as "in macro CALL"."""

    @property
    def place(self) -> str:
        """`file:line`, the file relative to the working directory when below it."""
        path = self.path
        if path.is_absolute():
            here = Path.cwd()
            path = path.relative_to(here) if path.is_relative_to(here) else path
        return f"{path}:{self.line}"

    @property
    def trail(self) -> str:
        """The way here, innermost first, in parentheses; empty for a plain line."""
        steps = []
        step = self
        while step.parent is not None:
            steps.append(f"{step.reason}, from {step.parent.place}")
            step = step.parent
        return f" ({'; '.join(steps)})" if steps else ""

    @property
    def depth(self) -> int:
        """How many expansions and inclusions lie around this line."""
        depth, step = 0, self
        while step.parent is not None:
            depth, step = depth + 1, step.parent
        return depth
