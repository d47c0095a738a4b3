"""Comparisons and suites in a few lines of Python: for notebooks and scripts.

>>> from bench.api import compare
>>> compare("pagefault").frame()[["rom", "exits", "exits_pte_write"]]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import suites
from bench.cluster import DaskCluster
from bench.executors import executor_for
from bench.inputs import load_guest, load_initrd, load_rom
from bench.points import Point
from bench.store import Results
from bench.sweep import sweep
from rombuilder.rom import Visibility
from vmi.queue import DEFAULT_CAPACITY
from vmm.core.errors import BadDescription
from vmm.core.policy import POLICIES, policy_named
from vmm.description import DEFAULT_MEMORY, MachineDescription

__all__ = ["Results", "compare", "run_suite"]

_SUITES: Mapping[str, Callable[..., list[Point]]] = {
    "batching": suites.batching,
    "io": suites.io,
    "paging": suites.paging,
}


def compare(
    guest: str,
    roms: Sequence[str] = ("none", "identity", "batching"),
    *,
    policies: Sequence[str] = (POLICIES[0].name,),
    queue: int = DEFAULT_CAPACITY,
    visibility: str = Visibility.TLB.value,
    command_line: str = "",
    initrd: Path | None = None,
    memory: int = DEFAULT_MEMORY,
    results: Path | None = None,
    jobs: int = 1,
) -> Results:
    """Run a guest with each ROM under each policy; names and files as for `vmirom compare`.

    `memory` is in bytes. Without a path for `results` they are kept in memory. Only what
    `results` lacks is run. Raises `BadDescription` for what does not exist.
    """
    chosen = load_guest(guest)
    images = [load_rom(name, queue, Visibility(visibility)) for name in roms]
    about = MachineDescription(
        guest=b"", command_line=command_line, initrd=load_initrd(initrd), memory=memory
    )
    points = [
        suites.make_point(
            "compare", chosen, image, replace(about, policy=policy_named(policy)), places=20
        )
        for policy in policies
        for image in images
    ]
    return _into(results, points, jobs=jobs)


def run_suite(
    suite: str,
    *,
    results: Path | None = None,
    repetitions: int = 1,
    jobs: int = 1,
    scheduler: str | None = None,
    **choices: Any,
) -> Results:
    """Run the suite `batching`, `io` or `paging`.

    `choices` go to the function of that name in `bench.suites`: `guests`, `policies`,
    `quick`. `scheduler` is the address of a Dask cluster's, in place of `jobs` processes here.
    Raises `BadDescription` when there is no such suite.
    """
    if suite not in _SUITES:
        raise BadDescription(f"suite {suite!r}: expected one of {', '.join(sorted(_SUITES))}")
    points = _SUITES[suite](**choices)
    return _into(results, points, repetitions=repetitions, jobs=jobs, scheduler=scheduler)


def _into(
    path: Path | None,
    points: Sequence[Point],
    *,
    repetitions: int = 1,
    jobs: int = 1,
    scheduler: str | None = None,
) -> Results:
    executor = executor_for(jobs) if scheduler is None else DaskCluster(scheduler)
    results = Results(path)
    try:
        sweep(points, results, repetitions=repetitions, executor=executor)
    except BaseException:
        results.close()
        raise
    return results
