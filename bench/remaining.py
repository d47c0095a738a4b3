"""The exits of a run by class, where they come from, and why each is forced.

Why an exit happens follows from three things: what happened, which the ledger says; what
the policy's processor does not let pass; and whether a ROM tells the monitor of page-table
updates through its queue. The rules below read those, and say nothing that they cannot
know from them.
"""

from collections import Counter
from collections.abc import Callable

from bench.symbols import SymbolMap
from bench.views import Schema, View, ranked
from vmm.core.event import Reason
from vmm.core.ledger import TOLD, Place
from vmm.core.policy import Policy
from vmm.result import Run

__all__ = ["REMAINING", "remaining"]

REMAINING = Schema(
    "vmirom.remaining/1",
    "Exits by class, with the places where most of a class come from, and why they are forced.",
    {
        "reason": "the exit reason",
        "what": "what the class has in common; ports by their device",
        "places": "the three most frequent instructions, with their exits",
        "why": "why the run's policy makes these exits, and why its ROM does not avoid them",
        "exits": "exits",
        "percent": "the share of all exits",
    },
)

_PLACES = 3
_DEVICES = (
    (0x20, 0x21, "8259A, first"),
    (0xA0, 0xA1, "8259A, second"),
    (0x40, 0x43, "8254 timer"),
    (0x61, 0x61, "8254 gate and speaker"),
    (0x60, 0x60, "keyboard controller"),
    (0x64, 0x64, "keyboard controller"),
    (0x70, 0x71, "real-time clock"),
    (0x80, 0x80, "delay port"),
    (0x170, 0x177, "IDE, second channel"),
    (0x1F0, 0x1F7, "IDE, first channel"),
    (0x376, 0x376, "IDE, second channel"),
    (0x3F6, 0x3F6, "IDE, first channel"),
    (0x3F8, 0x3FF, "serial port"),
    (0x402, 0x402, "debug port"),
    (0x501, 0x501, "power port"),
    (0x560, 0x560, "doorbell, looked for"),
    (0xCF8, 0xCFF, "PCI configuration"),
)
"""Where a PC's devices are: first port, last port, name."""


def remaining(run: Run, symbols: SymbolMap, top: int | None = None) -> View:
    """The classes of a run's exits, most frequent first."""
    classes: dict[tuple[str, str, str], Counter[int]] = {}
    for place in run.ledger.places:
        key = (place.reason.value, _what(place), _why(place, run))
        classes.setdefault(key, Counter())[place.eip] += place.count
    rows = [
        ((reason, what, _where(places, symbols), why), places.total())
        for (reason, what, why), places in classes.items()
    ]
    return ranked(REMAINING, rows, run.ledger.total, run.ledger.total, top)


def _where(places: Counter[int], symbols: SymbolMap) -> str:
    shown = [
        f"{symbols.name(eip) or f'{eip:#010x}'} {count:,}"
        for eip, count in sorted(places.items(), key=lambda item: (-item[1], item[0]))[:_PLACES]
    ]
    left = len(places) - len(shown)
    return ", ".join(shown) + (f", and {left:,} more" if left else "")


def _what(place: Place) -> str:
    match place.reason:
        case Reason.IO:
            return _device(int(place.detail.split()[2], 16))
        case Reason.PTE_WRITE:
            return "store to a traced table"
        case Reason.MMIO:
            return f"page {int(place.detail.split()[1], 16) & 0xFFFFF000:#010x}"
        case Reason.CPUID | Reason.INTERRUPT | Reason.INTERRUPT_WINDOW | Reason.HLT:
            return ""
        case _:
            return place.detail


def _device(port: int) -> str:
    for first, last, name in _DEVICES:
        if first <= port <= last:
            return name
    return f"port {port:#06x}"


_Rule = Callable[[Place, Policy, bool], str]


def _why(place: Place, run: Run) -> str:
    """One line, from what happened, the policy, and whether the ROM's queue was in use."""
    rule = _RULES.get(place.reason)
    if rule is None:
        return f"policy {run.policy.name} intercepts it, and no call of the ROM replaces it"
    return rule(place, run.policy, run.paravirt.notices > 0)


def _pte_write(_place: Place, policy: Policy, queued: bool) -> str:  # noqa: FBT001
    if queued:
        return "the table was not announced: stored before the ROM was found, or past its calls"
    if policy.unsync:
        return "the first store to a table since the last flush lets it go out of step"
    return "nobody tells the monitor of stores, so it traces every table and emulates each"


def _shadow_fill(place: Place, policy: Policy, queued: bool) -> str:  # noqa: FBT001
    if place.detail.endswith(TOLD):
        return (
            "records were waiting: the first access after a change that was queued and not rung "
            "for; a ring would be an exit as well"
        )
    if queued:
        return (
            "the guest's entry was never accessed, or the shadow had dropped it: only the access "
            "itself may set the accessed and dirty bits"
        )
    if policy.unsync:
        return "the shadow had no entry: not accessed before, or out of step since a store"
    return "the shadow had no entry: not accessed before, or changed by a traced store"


def _page_fault(place: Place, policy: Policy, queued: bool) -> str:  # noqa: FBT001
    if not policy.fault_mask:
        return (
            f"policy {policy.name} intercepts every page fault, to tell the guest's own from those "
            "of the shadow; the guest has to see this one"
        )
    if "ring 0" in place.detail:
        return "the error-code mask lets only faults of ring 3 pass"
    if queued:
        return "the shadow did not know the entry yet: the mask cannot tell the fault from its own"
    return "the shadow had no entry, or withheld a right: the mask cannot tell it from its own"


def _invlpg(_place: Place, policy: Policy, queued: bool) -> str:  # noqa: FBT001
    if queued:
        return "executed inline: before the ROM was found, or past its calls"
    return f"policy {policy.name} shadows tables: an invalidation must reach the shadow"


def _cr_access(place: Place, policy: Policy, queued: bool) -> str:  # noqa: FBT001
    if place.detail == "CR3" and not queued:
        return f"policy {policy.name} shadows tables: the guest's root is not the processor's"
    if place.detail == "CR3":
        return "executed inline: before the ROM was found, or past its calls"
    return (
        f"policy {policy.name} intercepts it; the guest's value is not the processor's, and the "
        "ROM leaves the register to the kernel where a call would cost as much"
    )


def _hypercall(place: Place, _policy: Policy, _queued: bool) -> str:  # noqa: FBT001
    return _RINGS.get(place.detail, "the ROM asks the monitor for it; it drains the queue too")


_RINGS = {
    "ATTACH": "once: the ROM announces its queue",
    "ADOPT_TABLES": "once: the tables of the boot are announced",
    "FLUSH": "an update that must be visible at once",
    "INVALIDATE_PAGE": "a queued record takes a right away, and the page must not be used with it",
    "FLUSH_TLB": "a queued record takes a right away: no stale translation may outlive the flush",
    "SET_CR3": "another root: the shadow's has to change, and the queue drains on the way",
    "QUEUE_FULL": "the queue had no slot left: a larger one (--queue) has fewer of these",
    "UPDATE_ENTRY": "the ROM could not tell where the entry lies in physical memory",
    "SET_ALARM": "the kernel's tick is set: in place of the timer's ports",
    "CANCEL_ALARM": "the kernel's tick is stopped: in place of the timer's ports",
    "START_AP": "once a processor: it begins in the kernel's state",
    "APIC_READ": "a register that is not mirrored in the queue's header",
    "APIC_WRITE": "in place of an access to the local APIC's page, which exits too",
}


def _io(place: Place, _policy: Policy, _queued: bool) -> str:  # noqa: FBT001
    if place.detail.split()[2] == "0x0080":
        return "the kernel's delay: a port write, unless the ROM answers IODelay"
    return "a device has the port: its registers are read and written nowhere else"


def _always(text: str) -> _Rule:
    return lambda _place, _policy, _queued: text


_RULES: dict[Reason, _Rule] = {
    Reason.PTE_WRITE: _pte_write,
    Reason.SHADOW_FILL: _shadow_fill,
    Reason.PAGE_FAULT: _page_fault,
    Reason.INVLPG: _invlpg,
    Reason.CR_READ: _cr_access,
    Reason.CR_WRITE: _cr_access,
    Reason.HYPERCALL: _hypercall,
    Reason.IO: _io,
    Reason.MMIO: _always("no RAM is there: a device answers, or a ROM swallows the store"),
    Reason.HLT: _always("the guest is idle: the processor is given back until something wakes it"),
    Reason.INTERRUPT: _always("a device's interrupt comes while the guest runs"),
    Reason.INTERRUPT_WINDOW: _always("a device's interrupt had to wait for the guest's flag"),
}
