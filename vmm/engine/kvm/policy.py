"""What counts as an exit on KVM: what the kernel hands to its userspace, and nothing else."""

from vmm.core.event import Event
from vmm.core.policy import Policy

__all__ = ["KVM_POLICY"]

KVM_POLICY = Policy(
    "kvm",
    "This host's processor under KVM: what the kernel hands to userspace. What it serves itself "
    "(CPUID, MSRs, page faults of nested paging) is not seen here",
    frozenset(
        {
            Event.HLT,
            Event.HYPERCALL,
            Event.INTERRUPT,
            Event.INTERRUPT_WINDOW,
            Event.IO,
            Event.MMIO,
            Event.PTE_WRITE,
        }
    ),
    shadow=False,
)
"""`pte_write` is a store to a page table that read-only slots trace (`KvmProcessor.trace`)."""
