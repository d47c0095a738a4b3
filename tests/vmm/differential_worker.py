"""Run machines described on standard input and print what came of them, as JSON.

Started once as it is and once with VMIROM_INTERPRETED=1, for the two executions of the core.
"""

import json
import sys
from pathlib import Path
from typing import Any

from vmm.core import is_compiled
from vmm.core.policy import policy_named
from vmm.machine import Machine, MachineDescription, Run


def result(job: dict[str, Any]) -> dict[str, Any]:
    """Everything in which two executions could differ."""
    machine = Machine(
        MachineDescription(
            Path(job["guest"]).read_bytes(),
            rom=Path(job["rom"]).read_bytes() if job["rom"] else None,
            command_line=job.get("command_line", ""),
            memory=job["memory"],
            policy=policy_named(job["policy"]),
            max_instructions=job["max_instructions"],
        )
    )
    return account(machine, machine.run())


def account(machine: Machine, run: Run) -> dict[str, Any]:
    """What is left of a run, down to registers and shadow entries."""
    state = machine.vcpu.shadow.pages.snapshot()
    return {
        "outcome": str(run.outcome),
        "instructions": run.instructions,
        "rom_instructions": run.rom_instructions,
        "virtual_ns": run.virtual_ns,
        "exits": {str(k): [v.light, v.heavy] for k, v in run.ledger.by_reason.items()},
        "events": run.ledger.engine_events,
        "places": [[p.reason, p.detail, p.eip, p.count] for p in run.ledger.places],
        "calls": {name: [use.count, use.instructions] for name, use in run.calls.items()},
        "paravirt": repr(run.paravirt),
        "complaints": list(run.complaints),
        "console": run.console,
        "memory_crc": run.memory_crc,
        "shadow": sum(i * e for i, e in enumerate(state["entries"]) if e) & ((1 << 64) - 1),
        "registers": [machine.vcpu.cpu.reg(i) for i in range(8)],
        "eip": machine.vcpu.cpu.eip(),
    }


def main() -> None:
    """Answer {"compiled": bool, "results": [...]} for the jobs."""
    jobs = json.load(sys.stdin)
    json.dump({"compiled": is_compiled(), "results": [result(job) for job in jobs]}, sys.stdout)


if __name__ == "__main__":
    main()
