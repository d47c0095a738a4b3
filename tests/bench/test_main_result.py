"""The main result, with the numbers that it must reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.compare import Comparison, NamedRun, compare, queue_cost
from bench.inputs import load_guest, load_rom
from vmirom.compare import in_words
from vmm.core.event import Reason
from vmm.core.policy import policy_named
from vmm.machine import MachineDescription

ROOT = Path(__file__).resolve().parents[2]
LEAST_STORES_SAVED = 95.0
LEAST_EXITS_SAVED = 80.0
MOST_INSTRUCTIONS = 20.0
"""ROM instructions per queued update."""


def forkstorm(policy: str) -> Comparison:
    roms = [load_rom(name) for name in ("none", "identity", "batching")]
    about = MachineDescription(guest=b"", policy=policy_named(policy))
    return compare(load_guest("forkstorm"), roms, about)


@pytest.fixture(scope="module")
def result() -> Comparison:
    return forkstorm("svm-shadow")


@pytest.fixture(scope="module")
def nested() -> Comparison:
    return forkstorm("npt")


def by_reason(named: NamedRun) -> dict[Reason, tuple[int, int]]:
    return {reason: (row.light, row.heavy) for reason, row in named.run.ledger.by_reason.items()}


def test_every_guest_is_content(result: Comparison, nested: Comparison) -> None:
    assert result.ok
    assert nested.ok


def test_batching_saves_page_table_writes(result: Comparison) -> None:
    stores = result.saving(result.runs[2], Reason.PTE_WRITE)
    assert stores.before > 20_000
    assert stores.percent >= LEAST_STORES_SAVED


def test_batching_saves_exits(result: Comparison) -> None:
    assert result.saving(result.runs[2]).percent >= LEAST_EXITS_SAVED
    assert "ROM batching saved" in in_words(result, result.runs[2])


def test_what_batching_saves_it_does_not_hide(result: Comparison) -> None:
    """True guest faults are the guest's own; no ROM makes them go away."""
    assert result.saving(result.runs[2], Reason.PAGE_FAULT).saved == 0


def test_identity_changes_nothing(result: Comparison) -> None:
    assert by_reason(result.runs[1]) == by_reason(result.runs[0])
    assert "saved nothing against none and added nothing" in in_words(result, result.runs[1])


def test_all_runs_do_the_same_work(result: Comparison) -> None:
    last = {named.run.console.splitlines()[-1] for named in result.runs}
    assert len(last) == 1
    assert "ok" in last.pop()


def test_nested_paging_leaves_nothing_to_save(nested: Comparison) -> None:
    assert Reason.PTE_WRITE not in by_reason(nested.runs[0])
    assert by_reason(nested.runs[1]) == by_reason(nested.runs[0])
    for named in nested.runs[1:]:
        assert -5 <= nested.saving(named).saved <= 0
        words = in_words(nested, named)
        assert f"ROM {named.rom.name} saved nothing" in words
        assert "has nothing to save" in words


@pytest.mark.parametrize("guest", ["ctxswitch", "forkstorm", "mmapstorm", "pagefault"])
def test_the_queue_is_cheap(guest: str) -> None:
    roms = [load_rom("batching")]
    run = compare(load_guest(guest), roms, MachineDescription(guest=b"")).runs[0].run
    cost = queue_cost(run)
    assert run.outcome.ok
    assert cost is not None
    assert 3 < cost <= MOST_INSTRUCTIONS


def test_an_interrupted_comparison_ends_there() -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    roms = [load_rom("none"), load_rom("batching")]
    about = MachineDescription(guest=b"")
    result = compare(load_guest("forkstorm"), roms, about, watch=stop)
    assert [str(named.run.outcome.kind) for named in result.runs] == ["interrupted"]


def compare_in_a_process() -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "vmirom", "compare", "forkstorm", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "random"},
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def test_counts_repeat_and_do_not_depend_on_load() -> None:
    quiet = compare_in_a_process()
    burner = [sys.executable, "-c", "while True: pass"]
    load = [subprocess.Popen(burner) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        busy = compare_in_a_process()
        assert all(process.poll() is None for process in load)
    finally:
        for process in load:
            process.kill()
            process.wait()
    assert busy == quiet
    assert quiet["runs"][0]["exits"]["total"] > quiet["runs"][2]["exits"]["total"] > 0
