"""What an engine hands to the core: where its CPU state lies and how to call it."""

from dataclasses import dataclass

__all__ = ["EngineBinding"]


@dataclass(frozen=True, slots=True)
class EngineBinding:
    """Addresses and numbers, calibrated and tested by the engine that gives them.

    `state` is the host address of the CPU state, `state_size` its readable bytes;
    the layout is the one `CpuState` documents. `handle` goes first into each call but
    `flush_page`, which takes `cpu` and a linear address, and `forget_all_code`, which
    takes `cpu`. `question` is the function by which translated code asks whether to stop.
    `error_code_offset` is where an intercepted exception leaves its error code,
    `fault_address` the host address where an intercepted page fault leaves the
    address it faulted on. `sysenter_offset` is where SYSENTER_CS lies (a dword),
    `sysenter_stack_offset` where SYSENTER_ESP and SYSENTER_EIP do (8 bytes each).
    `walk` is the engine's page walker, which fills its TLB, and `set_page` what that fills it
    with; `set_dirty` takes `cpu` and an address in a page where no store can hit translated code.
    `restore_state` brings the CPU state up to where translated code is, and `leave` leaves
    that code for good. `owner_offset` is where, from `cpu` on, the engine has a quadword that
    it has no use for and that says whose CPU it is (`vmm.core.mmu.tlbfill`).
    `next_flags` is the host address of what the next translation block is to be (a dword),
    for `vmm.core.cpu.sharedcpu`.
    """

    handle: int
    state: int
    state_size: int
    error_code_offset: int
    sysenter_offset: int
    sysenter_stack_offset: int
    fault_address: int
    cpu: int
    next_flags: int
    owner_offset: int
    walk: int
    set_page: int
    set_dirty: int
    restore_state: int
    leave: int
    stop: int
    flush_page: int
    forget_code: int
    forget_all_code: int
    question: int
    read_register: int
    write_register: int
    flags_id: int
    cr0_id: int
    cr3_id: int
    cr4_id: int
