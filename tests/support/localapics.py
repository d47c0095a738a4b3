"""A local APIC by itself: its registers' offsets, and what it says to the world."""

from dataclasses import dataclass, field

from vmm.core.apicmessage import DeliveryMode
from vmm.core.localapic import LocalApic
from vmm.core.timers import Timers

ID, VERSION, TPR, APR, PPR, EOI, RRD = 0x20, 0x30, 0x80, 0x90, 0xA0, 0xB0, 0xC0
LDR, DFR, SVR, ISR, TMR, IRR, ESR = 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200, 0x280
ICR, ICR_HIGH, TIMER, THERMAL, PERFORMANCE = 0x300, 0x310, 0x320, 0x330, 0x340
LINT0, LINT1, ERROR, INITIAL, CURRENT, DIVIDE = 0x350, 0x360, 0x370, 0x380, 0x390, 0x3E0
LVT = (TIMER, THERMAL, PERFORMANCE, LINT0, LINT1, ERROR)
MASKED = 0x10000
FIXED, NMI, INIT, STARTUP, EXTINT = (
    DeliveryMode.FIXED,
    DeliveryMode.NMI,
    DeliveryMode.INIT,
    DeliveryMode.STARTUP,
    DeliveryMode.EXTINT,
)


@dataclass
class Heard:
    """What a local APIC said to the world."""

    commands: list[tuple[int, int]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    levels: list[bool] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def command(self, _apic: LocalApic, low: int, destination: int) -> None:
        self.commands.append((low, destination))

    def end_of_interrupt(self, vector: int) -> None:
        self.ended.append(vector)


class Pic:
    """Stands in for the 8259s."""

    def __init__(self) -> None:
        self.pending = True
        self.asked = 0

    def acknowledge(self) -> int:
        self.asked += 1
        return 0x70


def make(*, enabled: bool = True, number: int = 0) -> tuple[LocalApic, Heard, Pic]:
    heard, pic = Heard(), Pic()
    apic = LocalApic(number, number == 0, Timers(), lambda: 0, heard, pic)
    apic.on_change = heard.levels.append
    apic.on_nmi = lambda: heard.calls.append("nmi")
    apic.on_init = lambda: heard.calls.append("init")
    apic.on_startup = lambda page: heard.calls.append(f"startup {page:#x}")
    if enabled:
        apic.write(SVR, 0x1FF)
    return apic, heard, pic


def vectors(apic: LocalApic, register: int) -> set[int]:
    return {
        32 * word + bit
        for word in range(8)
        for bit in range(32)
        if apic.read(register + 16 * word) >> bit & 1
    }
