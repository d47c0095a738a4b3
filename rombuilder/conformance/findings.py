"""What a check found, in a form that travels between processes and into reports."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from rombuilder.conformance.rules import RULES, Problem
from rombuilder.conformance.states import State

__all__ = ["Finding", "Findings"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule. `call` and `load` are None for what concerns the image as such."""

    code: str
    call: str | None
    load: int | None
    """Where the image lay."""
    seed: str
    """Makes the state again: the check's seed, the load address, the call and a number."""
    state: Mapping[str, str]
    text: str

    @property
    def rule(self) -> str:
        """What should have been."""
        return RULES[self.code].text if self.code in RULES else "An option ROM is well formed."

    @property
    def source(self) -> str:
        """Who says so."""
        if self.code in RULES:
            return RULES[self.code].source
        return "PCI Firmware Specification 3.0, 5.1; PnP BIOS Specification 1.0A, 3; Linux vmi_32.c"

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "state": dict(self.state)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, object]) -> "Finding":
        """Back from JSON; raises `TypeError` for what is no finding."""
        call, load, state = raw["call"], raw["load"], raw["state"]
        if not (
            isinstance(call, str | None)
            and isinstance(load, int | None)
            and isinstance(state, dict)
        ):
            raise TypeError(f"malformed finding {raw!r}")
        texts = {str(key): str(value) for key, value in state.items()}
        return cls(str(raw["code"]), call, load, str(raw["seed"]), texts, str(raw["text"]))


@dataclass(slots=True)
class Findings:
    """Passes each kind of finding on once a call: the first one tells enough."""

    report: Callable[[Finding], None]
    _seen: set[tuple[str, str | None]] = field(default_factory=set)

    def add(self, problem: Problem, call: str, load: int, state: State) -> None:
        """A call broke a rule on a state."""
        key = (problem.code, call)
        if key not in self._seen:
            self._seen.add(key)
            self.report(
                Finding(
                    problem.code,
                    call,
                    load,
                    state.seed,
                    state.describe(),
                    f"{call} {problem.text}",
                )
            )
