"""Speed is measured by turns and against others; here: that it measures what it says."""

import gc
import resource

import pytest

from bench.bare import compare_with_bare
from bench.endurance import Stretch, steadiness
from bench.exitcosts import exit_costs, growth
from bench.tcg import QEMU
from bench.yardstick import WORKS, Pace, interval, load_work, measure_pace, run_work
from vmm.core import is_compiled
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription

ABOUT = MachineDescription(guest=b"")
COUNTED = {
    "ALU": (4000, None),
    "memory copy": (12000, None),
    "call and return": (4000, None),
    "port reads": (100, "io"),
    "CPUID": (100, "cpuid"),
}
"""At least so many instructions or exits of a reason a round."""


@pytest.mark.parametrize("name", COUNTED)
def test_a_round_is_what_it_says(name: str) -> None:
    work = next(work for work in WORKS if work.name == name)
    guest = load_work(work)
    head, _, _ = work.much.rpartition("=")
    _, one = run_work(guest, f"{head}=1", ABOUT)
    _, eleven = run_work(guest, f"{head}=11", ABOUT)
    least, reason = COUNTED[name]
    if reason is None:
        assert eleven.instructions - one.instructions >= 10 * least
        assert eleven.ledger.total == one.ledger.total
        return
    counts = [
        {r.value: count.count for r, count in run.ledger.by_reason.items()} for run in (one, eleven)
    ]
    assert counts[1][reason] - counts[0][reason] == 10 * least


@pytest.mark.skipif(not is_compiled(), reason="the core is not compiled")
def test_nothing_grows_with_exits() -> None:
    """Objects and memory after two million exits are what they were after a few."""
    work = next(work for work in WORKS if work.name == "CPUID")
    guest = load_work(work)

    def after(rounds: int) -> tuple[int, int]:
        machine = Machine(MachineDescription(guest.image, command_line=f"work=7 rounds={rounds}"))
        gc.collect()
        before = len(gc.get_objects())
        run = machine.run()
        assert run.outcome.kind is OutcomeKind.PASSED
        assert run.ledger.total >= 100 * rounds
        gc.collect()
        return len(gc.get_objects()) - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    after(10)
    few, least = after(2_000)
    many, most = after(20_000)
    assert abs(many - few) < 50
    assert most - least < 4096  # KiB


def test_growth_starts_after_the_set_up() -> None:
    small, large = growth(ABOUT, 1000)
    assert (small.exits, large.exits) == (900, 9900)


def test_costs_are_by_weight_and_in_order() -> None:
    costs = exit_costs(ABOUT, scale=0.01)
    assert [cost.weight for cost in costs] == ["light", "light", "heavy"]
    for cost in costs:
        assert list(cost.core) == sorted(cost.core)
        assert cost.core[0] > 0


def test_bare_unicorn_runs_the_same_code() -> None:
    for row in compare_with_bare(ABOUT, 1, scale=0.001):
        assert row.bare[0] > 0


def test_what_is_too_short_has_no_ratio() -> None:
    pace = Pace("x", (0.5, 0.5), (0.25, 1e-9), 10, 0, {})
    assert pace.ratios == [2.0]
    assert interval(pace.ratios) == (2.0, 2.0, 2.0)
    assert interval([]) is None


def test_a_cost_is_compared_within_a_work() -> None:
    stretches = [Stretch(name, exits, seconds, 1, 1) for name, exits, seconds in ROWS]
    assert steadiness(stretches) == [pytest.approx(1.1), pytest.approx(0.9)]


ROWS = [("a", 1000, 0.1), ("a", 10_000, 1.1), ("b", 1000, 1.0), ("b", 10_000, 9.0)]


@pytest.mark.peer(QEMU)
def test_qemu_does_the_same_work() -> None:
    works = [work for work in WORKS if work.name in {"sort", "fork storm"}]
    sort, fork = measure_pace(works, ABOUT, 1, scale=0.002)
    assert sort.exits == 0
    assert fork.reasons["pte_write"] > 0
