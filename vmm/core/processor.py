"""One virtual CPU as its machine sees it: what it is doing, and what others ask of it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar, Protocol

from vmi.apstate import ApState
from vmm.core.bus import InterruptController
from vmm.core.cpu.apbegin import begin_in
from vmm.core.cpu.apstart import check_start
from vmm.core.cpu.vcpu import Vcpu
from vmm.core.run.stop import Stop
from vmm.core.saved import CUSTOM, FLAG, PART, U8, Fields, Optional

__all__ = ["Activity", "Engine", "Processor"]

_NMI = 2


class Engine(Protocol):
    """What executes instructions."""

    def run(self, eip: int, instructions: int = 0) -> None:
        """Run from `eip` until the vCPU asks to stop, or for so many instructions."""
        ...


class Activity(Enum):
    """Whether a CPU executes instructions."""

    RUNNING = auto()
    HALTED = auto()
    """After HLT, until an interrupt that it can take, or an NMI."""
    WAITING = auto()
    """After INIT, until start-up."""


@dataclass(slots=True, eq=False)
class Processor:
    """A virtual CPU with its engine and whoever decides which interrupt it gets next.

    `page` is where start-up, once asked for, begins in real mode, unless `state` says
    otherwise. `line_was` is the state of its interrupt line when it last stopped running.
    `look` tells a CPU with a thread of its own that something is asked of it.
    """

    SAVED: ClassVar[Fields] = Fields(
        {
            PART: "vcpu",
            CUSTOM: "activity state",
            FLAG: "nmi line_was",
            Optional(U8): "page",
        },
        wiring="engine interrupts look",
    )

    vcpu: Vcpu
    engine: Engine
    interrupts: InterruptController
    activity: Activity = Activity.RUNNING
    nmi: bool = False
    page: int | None = None
    state: ApState | None = None
    line_was: bool = False
    look: Callable[[], None] | None = None

    # ---- for `vmm.core.saved`

    def _save_activity(self) -> str:
        """By name."""
        return self.activity.name

    def _load_activity(self, value: str) -> None:
        """The same."""
        self.activity = Activity[value]

    def _save_state(self) -> bytes | None:
        """As the guest has it in memory."""
        return None if self.state is None else self.state.encode()

    def _load_state(self, value: bytes | None) -> None:
        """The same, checked as when the guest asks for it."""
        self.state = None
        if value is not None:
            state = ApState.decode(value)
            check_start(state)
            self.state = state

    # ---- asked by local APICs

    def init(self) -> None:
        """INIT: stop, and wait for start-up."""
        self.activity = Activity.WAITING
        self.page = self.state = None
        self.nmi = False
        self.attend()

    def startup(self, page: int) -> None:
        """Start in real mode at the page with this number; of no effect unless it waits for it."""
        if self.activity is Activity.WAITING and self.page is None:
            self.page = page
            if self.look is not None:
                self.look()

    def start_in(self, state: ApState) -> None:
        """Begin in this state, and not in real mode, at the next start-up."""
        self.state = state

    def raise_nmi(self) -> None:
        """The non-maskable interrupt."""
        self.nmi = True
        self.attend()

    def attend(self) -> None:
        """Come to the run loop, to see what is asked."""
        if self.look is None:
            self.vcpu.request_stop(Stop.YIELD)
        else:
            self.look()

    # ---- asked by the run loop

    @property
    def can_run(self) -> bool:
        """Would it execute instructions, were it its turn?"""
        match self.activity:
            case Activity.RUNNING:
                return True
            case Activity.HALTED:
                return self.nmi or (self.interrupts.pending and self.vcpu.can_interrupt_now())
            case Activity.WAITING:
                return self.page is not None

    def begin(self) -> None:
        """Its turn begins: start up if that was asked for."""
        if self.page is not None:
            if self.state is None:
                self.vcpu.initialise(self.page)
            else:
                begin_in(self.vcpu, self.state)
            self.page = self.state = None
        self.activity = Activity.RUNNING

    def take_nmi(self) -> bool:
        """Deliver an NMI that waits."""
        if not self.nmi:
            return False
        self.nmi = False
        self.vcpu.interrupt(_NMI)
        return True
