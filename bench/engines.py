"""Why two engines count what they count: the difference of two runs, explained."""

from dataclasses import dataclass

from bench.compare import Comparison, NamedRun
from vmm.core.event import Reason

__all__ = ["EngineDifference", "engine_differences", "explain"]

_PAGING = frozenset(
    {
        Reason.PTE_WRITE,
        Reason.SHADOW_FILL,
        Reason.PAGE_FAULT,
        Reason.INVLPG,
        Reason.CR_READ,
        Reason.CR_WRITE,
    }
)
_IN_KERNEL = frozenset(
    {Reason.CPUID, Reason.MSR, Reason.DR_ACCESS, Reason.DESCRIPTOR_TABLE, Reason.OTHER}
)
_TIMED = frozenset({Reason.HLT, Reason.INTERRUPT, Reason.INTERRUPT_WINDOW})


@dataclass(frozen=True, slots=True)
class EngineDifference:
    """Exits of one guest with one ROM on two engines, where they differ.

    `by_reason` has (count on the first, count on the second); `heavy` the same of all
    heavy exits, which also tell when they are equal.
    """

    rom: str
    first: str
    second: str
    heavy: tuple[int, int]
    by_reason: dict[Reason, tuple[int, int]]


def engine_differences(comparison: Comparison) -> list[EngineDifference]:
    """Each ROM's run on the first engine against its run on every other one."""
    first = comparison.engines[0]
    base = {one.rom.name: one for one in comparison.runs if one.run.engine == first}
    return [
        _difference(base[other.rom.name], other)
        for other in comparison.runs
        if other.run.engine != first
    ]


def _difference(one: NamedRun, other: NamedRun) -> EngineDifference:
    ledgers = one.run.ledger, other.run.ledger
    reasons = sorted({reason for ledger in ledgers for reason in ledger.by_reason})
    counts = {
        reason: tuple(
            row.count if (row := ledger.by_reason.get(reason)) else 0 for ledger in ledgers
        )
        for reason in reasons
    }
    return EngineDifference(
        one.rom.name,
        one.run.engine,
        other.run.engine,
        (ledgers[0].heavy, ledgers[1].heavy),
        {reason: (a, b) for reason, (a, b) in counts.items() if a != b},
    )


def explain(difference: EngineDifference) -> list[str]:
    """The difference in sentences, one a line."""
    first, second = difference.first, difference.second
    before, after = difference.heavy
    lines = [
        f"Heavy exits, those of devices, are equal: {before:,}."
        if before == after
        else f"Heavy exits, those of devices, differ: {before:,} on {first}, {after:,} on {second}."
    ]
    for reasons, text in (
        (
            _PAGING,
            (
                f"on engine {second} processor and kernel see to the page tables "
                "(hardware-assisted paging); nothing of it comes out, but for stores to tables "
                "that are traced by read-only slots."
            ),
        ),
        (
            _IN_KERNEL,
            f"on engine {second} the kernel serves these itself and tells nobody.",
        ),
        (
            _TIMED,
            f"the time of engine {second} is the host's, so interrupts meet the guest elsewhere.",
        ),
        (
            frozenset({Reason.HYPERCALL}),
            f"engine {second} grants a ROM that attaches no shadow, so there is less to tell it.",
        ),
    ):
        found = [reason for reason in difference.by_reason if reason in reasons]
        if found:
            lines.append(f"{_listed(difference, found)}: {text}")
    other = [
        reason
        for reason in difference.by_reason
        if reason not in _PAGING | _IN_KERNEL | _TIMED | {Reason.HYPERCALL}
    ]
    if other:
        lines.append(
            f"{_listed(difference, other)}: the ROM or the guest took another way, or ran longer."
        )
    return lines


def _listed(difference: EngineDifference, reasons: list[Reason]) -> str:
    return ", ".join(
        "{} {:,} and {:,}".format(reason.value, *difference.by_reason[reason]) for reason in reasons
    )
