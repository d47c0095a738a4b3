"""Tasks on a Dask cluster: many machines, the same rows."""

from collections.abc import Iterator, Sequence

from bench.points import Task, run_task
from bench.record import Row
from vmm.core.errors import BadDescription, VmmError

__all__ = ["DaskCluster"]

_PATIENCE = 15
"""Seconds to reach the scheduler."""


class DaskCluster:
    """The cluster whose scheduler listens at `address`, such as `tcp://10.0.0.1:8786`.

    Workers need vmirom of the same code; `bench.sweep.sweep` refuses rows of another. Dask runs
    a task again whose worker dies. Raises `BadDescription` when the extra `dask` is not
    installed.
    """

    def __init__(self, address: str) -> None:
        try:
            import distributed  # noqa: PLC0415 - an extra
        except ImportError:
            raise BadDescription("a Dask cluster needs: pip install 'vmirom[dask]'") from None
        self._distributed = distributed
        self._address = address

    def run(self, tasks: Sequence[Task]) -> Iterator[Row]:
        """Yield one row a task.

        Raises `BadDescription` when nobody answers at the address and `VmmError` when
        several workers died of one task.
        """
        distributed = self._distributed
        try:
            client = distributed.Client(self._address, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise BadDescription(f"scheduler {self._address!r}: {error}") from None
        with client:
            waiting = {
                client.submit(run_task, task, key=f"vmirom-{task.key}", pure=False): task
                for task in tasks
            }
            try:
                for future in distributed.as_completed(list(waiting), loop=client.loop):
                    task = waiting.pop(future)
                    try:
                        yield future.result()
                    except distributed.KilledWorker as error:
                        raise VmmError(f"{task.point.case.label}: {error}") from None
            finally:
                client.cancel(list(waiting))
