"""Run guests on the interpreted core with one rule taken out of it; see romrules.py.

Reads {"guest", "rom", "rule"} objects in a list from standard input and prints the outcomes. With
a "trampoline" there are two CPUs, and the second one starts at this file's contents.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vmm.core import is_compiled
from vmm.core.cpu.cpustate import CpuState
from vmm.core.mmu.curtain import Curtain
from vmm.core.mmu.shadow import ShadowMmu
from vmm.core.mmu.shadowpages import ShadowPages
from vmm.core.paravirt.batch import BatchQueue
from vmm.core.policy import POLICIES, policy_named
from vmm.machine import Machine, MachineDescription

Method = Callable[..., Any]
TRAMPOLINE = 0x8000


def nothing(*_arguments: object) -> int:
    return 0


def not_from(method: Method, *callers: str) -> Method:
    """The method does nothing where one of these calls it."""

    def chosen(*arguments: object) -> object:
        if sys._getframe(1).f_code.co_name in callers:
            return 0
        return method(*arguments)

    return chosen


def announce_and_keep(shadow: Any, frame: int) -> int:
    shadow.pages.announced[frame] = 1
    return 0


def release_and_keep(shadow: Any, frame: int) -> int:
    shadow.pages.announced[frame] = 0
    return 0


def release_untraced(shadow: Any, frame: int) -> int:
    return int(shadow.pages.unshadow(frame))


def check_the_address_only(queue: Any) -> int:
    filled = sys._getframe(1).f_code.co_name == "page_fault"
    if filled and queue.shadow.cpu.fault_address() >> 12 == queue.fault_page:
        queue.forget_fault_page()
    return 0


def drop_linked_only(shadow: Any, address: int, _entry: int) -> int:
    location = shadow.location(address)
    if location:
        shadow.pages.drop_leaf(location)
    return int(shadow.flush_if_stale())


def drain_this_cpus_alone(queue: Any) -> int:
    return int(queue.drain_own())


def lower_nothing(curtain: Any, _root: int) -> int:
    curtain.is_down = True
    return 0


DRAIN, CHECK, FORGET = (
    BatchQueue.drain,
    BatchQueue.check_fault_page,
    BatchQueue.forget_fault_page,
)
Rule = list[tuple[type, str, Method]]
RULES: dict[str, Rule] = {
    "a doorbell drains": [(BatchQueue, "drain", not_from(DRAIN, "ring"))],
    "a load of CR0 drains": [(BatchQueue, "drain", not_from(DRAIN, "set_cr0"))],
    "a load of CR3 drains": [(BatchQueue, "drain", not_from(DRAIN, "control_register"))],
    "a load of CR4 drains": [(BatchQueue, "drain", not_from(DRAIN, "set_cr4"))],
    "INVLPG drains": [(BatchQueue, "drain", not_from(DRAIN, "invlpg"))],
    "the TLB is flushed after a drain": [(ShadowPages, "flush_if_stale", nothing)],
    "the TLB is flushed at ATTACH": [
        (CpuState, "flush_tlb", not_from(CpuState.flush_tlb, "attach"))
    ],
    "a fault drops its translation": [(ShadowMmu, "drop_translation", nothing)],
    "a fill ends the fault page": [(BatchQueue, "check_fault_page", not_from(CHECK, "page_fault"))],
    "a drain ends the fault page": [(BatchQueue, "check_fault_page", not_from(CHECK, "drain_own"))],
    "CR3 ends the fault page": [
        (BatchQueue, "forget_fault_page", not_from(FORGET, "ring", "control_register")),
        (BatchQueue, "check_fault_page", not_from(CHECK, "ring")),
    ],
    "a fill elsewhere ends the fault page": [
        (BatchQueue, "check_fault_page", check_the_address_only),
        (ShadowMmu, "drop_translation", drop_linked_only),
    ],
    "announcing drops the shadow": [(ShadowMmu, "announce", announce_and_keep)],
    "releasing drops the shadow": [(ShadowMmu, "release", release_and_keep)],
    "releasing traces again": [(ShadowMmu, "release", release_untraced)],
    "tables are adopted": [(ShadowMmu, "adopt_tables", nothing)],
    "a drain looks into every queue": [(BatchQueue, "drain", drain_this_cpus_alone)],
    "the other CPUs' TLBs follow a drain": [(ShadowPages, "others_are_behind", nothing)],
    "INIT takes the home away": [(BatchQueue, "move_out", nothing)],
    "a lowered curtain hides": [(Curtain, "lower", lower_nothing)],
    "a drain lifts the curtain": [(Curtain, "lift", nothing)],
    "what is withheld is marked": [(ShadowPages, "mark", lambda _pages, _guest, entry: entry)],
}


@contextlib.contextmanager
def without(rule: str | None) -> Iterator[None]:
    """Take a rule out of the core."""
    broken = RULES[rule] if rule else []
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in broken]
    for owner, name, method in broken:
        setattr(owner, name, method)
    try:
        yield
    finally:
        for owner, name, method in kept:
            setattr(owner, name, method)


def outcome(job: dict[str, Any]) -> str:
    """How a run without a rule ends."""
    about = MachineDescription(
        Path(job["guest"]).read_bytes(),
        rom=Path(job["rom"]).read_bytes(),
        memory=4 << 20,
        max_instructions=200_000,
        policy=policy_named(job.get("policy", POLICIES[0].name)),
        cpus=2 if "trampoline" in job else 1,
    )
    with without(job["rule"]):
        machine = Machine(about)
        if "trampoline" in job:
            machine.memory.load(TRAMPOLINE, Path(job["trampoline"]).read_bytes())
            machine.processors[1].startup(TRAMPOLINE >> 12)
        return str(machine.run().outcome)


def main() -> None:
    """Answer a list of outcomes."""
    assert not is_compiled()
    json.dump([outcome(job) for job in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
