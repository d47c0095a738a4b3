"""The ledger: a run's events as exits by reason, under a policy, with places."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from vmi.doorbell import Doorbell
from vmm.core.event import REASON_OF, Event, Reason
from vmm.core.policy import Policy

__all__ = ["TOLD", "Ledger", "Place", "PortAccess", "ReasonCount", "describe"]


@dataclass(slots=True)
class ReasonCount:
    """Exits for one reason. Light ones are served in the core, heavy ones by a device."""

    light: int = 0
    heavy: int = 0

    @property
    def count(self) -> int:
        """All exits for the reason."""
        return self.light + self.heavy


@dataclass(frozen=True, slots=True)
class Place:
    """Where exits came from: a reason, what was accessed, and the instruction's address."""

    reason: Reason
    detail: str
    eip: int
    count: int


@dataclass(frozen=True, slots=True)
class PortAccess:
    """A port, the bytes accessed, and `in` or `out`."""

    port: int
    size: int
    direction: str

    @classmethod
    def of(cls, qualifier: int) -> "PortAccess":
        """As the counters have it: the port, the size above it, then the direction."""
        return cls(qualifier & 0xFFFF, (qualifier >> 16) & 0xFF, "out" if qualifier >> 24 else "in")


TOLD = "told by the queue"
"""At the end of a hidden fault's place: records were drained just before it was judged."""

_FAULT_PRESENT, _FAULT_WRITE, _FAULT_USER, _FAULT_TOLD = 1, 2, 4, 8

_DOORBELL_NAMES = {int(function): function.name for function in Doorbell}


def describe(event: Event, qualifier: int) -> str:
    """What was accessed: port, size and direction, a table, a register, a function."""
    match event:
        case Event.IO | Event.REFLECT:
            access = PortAccess.of(qualifier)
            return f"{access.direction} port {access.port:#06x} size {access.size}"
        case Event.HYPERCALL:
            return _DOORBELL_NAMES.get(qualifier, f"function {qualifier}")
        case Event.PTE_WRITE:
            return f"table {qualifier:#010x}"
        case Event.SHADOW_FILL | Event.PAGE_FAULT | Event.BYPASSED_FAULT:
            return _access(event, qualifier)
        case Event.MMIO:
            return f"address {qualifier:#010x}"
        case Event.CR_READ | Event.CR_WRITE | Event.MASKED_CR_READ:
            return f"CR{qualifier}"
        case Event.CPUID:
            return f"leaf {qualifier:#x}"
        case Event.MSR:
            return f"MSR {qualifier:#x}"
        case Event.DR_ACCESS:
            return f"DR{qualifier}"
        case Event.EXCEPTION:
            return f"vector {qualifier}"
        case _:
            return ""


def _access(event: Event, error: int) -> str:
    """What faulted: the error code's bits (SDM vol. 3, section 4.7), and `TOLD` above them."""
    text = "write" if error & _FAULT_WRITE else "read"
    text += " by ring 3" if error & _FAULT_USER else " by ring 0"
    if event is Event.SHADOW_FILL:
        return f"{text}, {TOLD}" if error & _FAULT_TOLD else text
    return f"{text}, {'protection' if error & _FAULT_PRESENT else 'not present'}"


@dataclass(slots=True)
class Ledger:
    """What one run cost. Reasons without exits are left out.

    `elsewhere` is how many events found no room in the tables of places, and are missing
    in `places` and `ports`.
    """

    by_reason: dict[Reason, ReasonCount] = field(default_factory=dict)
    engine_events: dict[str, int] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    ports: dict[PortAccess, int] = field(default_factory=dict)
    elsewhere: int = 0

    @classmethod
    def from_counts(
        cls,
        policy: Policy,
        totals: dict[Event, tuple[int, int]],
        places: Iterable[tuple[Event, int, int, int]],
        elsewhere: int,
    ) -> "Ledger":
        """Sort counted events into exits and engine events.

        `totals` maps events to (all, of which heavy); `places` are (event, qualifier,
        eip, count).
        """
        ledger = cls(elsewhere=elsewhere)
        for event, (count, heavy) in sorted(totals.items()):
            if event in policy.exits:
                row = ledger.by_reason.setdefault(REASON_OF[event], ReasonCount())
                row.heavy += heavy
                row.light += count - heavy
            else:
                ledger.engine_events[event.name.lower()] = count
        for event, qualifier, eip, count in places:
            if event in policy.exits:
                ledger.places.append(
                    Place(REASON_OF[event], describe(event, qualifier), eip, count)
                )
                if event is Event.IO:
                    access = PortAccess.of(qualifier)
                    ledger.ports[access] = ledger.ports.get(access, 0) + count
        return ledger

    @property
    def total(self) -> int:
        """All exits."""
        return sum(row.count for row in self.by_reason.values())

    @property
    def light(self) -> int:
        """Exits served in the core."""
        return sum(row.light for row in self.by_reason.values())

    @property
    def heavy(self) -> int:
        """Exits served by a device."""
        return sum(row.heavy for row in self.by_reason.values())
