"""Port filters: small verified programs that answer hot port reads within the core.

A filter is an eBPF program (RFC 9669), assembled from text or read from an ELF object,
walked path by path before it may run (`verifier`), and run by the core
(`vmm.core.ports.filtervm`) in memory of its own.
"""

from vmm.filters.attach import attach, load_filter, shipped_filters
from vmm.filters.program import BadFilter, FilterProgram
from vmm.filters.verifier import RejectedFilter, verify

__all__ = [
    "BadFilter",
    "FilterProgram",
    "RejectedFilter",
    "attach",
    "load_filter",
    "shipped_filters",
    "verify",
]
