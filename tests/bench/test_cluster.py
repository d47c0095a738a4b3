"""The same rows from a Dask cluster, whatever becomes of its workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bench import suites
from bench.cluster import DaskCluster
from bench.executors import Inline
from bench.store import Results
from bench.sweep import sweep

distributed = pytest.importorskip("distributed")


def test_a_worker_that_is_killed_changes_nothing(tmp_path: Path) -> None:
    points = suites.batching(["pagefault", "mmapstorm"], quick=True)
    killed: list[int] = []
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(tmp_path),
            silence_logs="CRITICAL",
        ) as cluster,
        Results() as there,
        Results() as here,
    ):
        pids = sorted(worker.pid for worker in cluster.workers.values())
        assert len(pids) == 2

        def kill_one_half_way(done: int, total: int, _: str) -> None:
            if done >= total // 2 and not killed:
                os.kill(pids[0], signal.SIGKILL)
                killed.append(done)

        rows = sweep(
            points,
            there,
            executor=DaskCluster(cluster.scheduler_address),
            progress=kill_one_half_way,
        )
        assert killed == [len(points) // 2]
        expected = sweep(points, here, executor=Inline())
    assert [(row.key, row.outcome, row.counts) for row in rows] == [
        (row.key, row.outcome, row.counts) for row in expected
    ]
    for row, other in zip(rows, expected, strict=True):
        assert row.counts is not None
        assert other.counts is not None
        assert not list(row.counts.differences(other.counts))
