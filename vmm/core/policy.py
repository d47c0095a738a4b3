"""Policies: which events the modelled processor exits on. A policy is data."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vmi.doorbell import Feature
from vmm.core.errors import BadDescription
from vmm.core.event import Event

__all__ = ["INTERCEPTS", "POLICIES", "Policy", "policy_named"]


@dataclass(frozen=True, slots=True)
class Policy:
    """A named set of intercepts.

    `shadow` says whether page tables are shadowed; without it the processor walks
    the guest's tables itself. `fault_mask` models the error-code mask and match of
    VT-x, which lets true faults of ring 3 reach the guest without an exit, and its list of
    CR3 values that load without one. With `unsync` a leaf table that is written to goes
    out of step until the next flush.
    """

    name: str
    summary: str
    exits: frozenset[Event]
    shadow: bool = True
    fault_mask: bool = False
    unsync: bool = False

    @property
    def features(self) -> Feature:
        """What a monitor with this policy grants a ROM that attaches a queue."""
        if self.fault_mask:
            return Feature.ATTACHED | Feature.SHADOW | Feature.IN_STEP | Feature.CURTAIN
        if self.shadow:
            return Feature.ATTACHED | Feature.SHADOW | Feature.IN_STEP
        return Feature.ATTACHED

    def adjusted(self, changes: Iterable[str]) -> "Policy":
        """The policy with intercepts added or removed, each given as "+name" or "-name".

        Raises `BadDescription` for an intercept that does not exist.
        """
        exits = set(self.exits)
        names = []
        for change in changes:
            sign, name = change[:1], change[1:]
            if sign not in {"+", "-"} or name not in INTERCEPTS:
                raise BadDescription(
                    f"intercept {change!r}: expected + or - and one of "
                    f"{', '.join(sorted(INTERCEPTS))}"
                )
            if sign == "+":
                exits |= INTERCEPTS[name]
            else:
                exits -= INTERCEPTS[name]
            names.append(change)
        if not names:
            return self
        return replace(self, name=f"{self.name}{''.join(names)}", exits=frozenset(exits))


INTERCEPTS: dict[str, frozenset[Event]] = {
    "cpuid": frozenset({Event.CPUID}),
    "cr_read": frozenset({Event.CR_READ, Event.MASKED_CR_READ}),
    "cr_write": frozenset({Event.CR_WRITE}),
    "dr_access": frozenset({Event.DR_ACCESS}),
    "exception": frozenset({Event.EXCEPTION}),
    "hlt": frozenset({Event.HLT}),
    "invlpg": frozenset({Event.INVLPG}),
    "msr": frozenset({Event.MSR}),
    "rdtsc": frozenset({Event.RDTSC}),
    "software_interrupt": frozenset({Event.SOFTWARE_INTERRUPT}),
    "wbinvd": frozenset({Event.WBINVD}),
}
"""Intercepts that a policy may have or not, by name."""

_ALWAYS = frozenset(
    {
        Event.CPUID,
        Event.DIRTY_LOG,
        Event.DR_ACCESS,
        Event.HLT,
        Event.HYPERCALL,
        Event.INTERRUPT,
        Event.INTERRUPT_WINDOW,
        Event.IO,
        Event.MMIO,
        Event.MSR,
        Event.REFLECT,
    }
)
_SHADOW = frozenset(
    {
        Event.CR_READ,
        Event.CR_WRITE,
        Event.INVLPG,
        Event.PAGE_FAULT,
        Event.PTE_WRITE,
        Event.SHADOW_FILL,
    }
)

POLICIES: tuple[Policy, ...] = (
    Policy(
        "svm-shadow",
        "First-generation AMD-V with shadow paging; every page-table store is trapped "
        "(KVM of 2007, svm.c)",
        _ALWAYS | _SHADOW | {Event.MASKED_CR_READ, Event.WBINVD},
    ),
    Policy(
        "svm-unsync",
        "The same, with leaf tables out of step from the first store to the next flush: the "
        "stronger baseline (KVM from 2008, mmu.c, kvm_unsync_page)",
        _ALWAYS | _SHADOW | {Event.MASKED_CR_READ, Event.WBINVD},
        unsync=True,
    ),
    Policy(
        "vtx-shadow",
        "First-generation VT-x with shadow paging; reads of CR0 and CR4, and true faults "
        "of ring 3 on entries that the shadow knows, reach the guest without an exit (KVM of 2007, "
        "vmx.c, with bypass_guest_pf)",
        _ALWAYS | _SHADOW,
        fault_mask=True,
    ),
    Policy(
        "npt",
        "Hardware-assisted (nested) paging: page tables cost no exits",
        _ALWAYS,
        shadow=False,
    ),
)
"""The first one is the default."""


def policy_named(name: str) -> Policy:
    """The policy with this name; raises `BadDescription` when there is none."""
    for policy in POLICIES:
        if policy.name == name:
            return policy
    known = ", ".join(policy.name for policy in POLICIES)
    raise BadDescription(f"policy {name!r}: expected one of {known}")
