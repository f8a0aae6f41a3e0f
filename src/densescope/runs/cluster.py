"""The checkpoints of a sweep are scored by tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from densescope.errors import DensescopeError, InputError
from densescope.features.discovery import RunCheckpoint
from densescope.records import ScoreRecord
from densescope.runs.executors import TRIES, Plan, Report, failed_record, score_job

Result = TypeVar("Result")


@dataclass(frozen=True)
class Ray:
    """Tasks of a Ray cluster, one per checkpoint; one is started where none is found.

    The nodes must see the checkpoints, the images and the folder of the records under the same
    paths, and have this package installed. A task whose worker or node is lost runs again.

    Attributes:
        cpus: cores of a task.
        gpus: its share of a GPU; shares below 1 put several tasks on one.
        address: of the cluster; ``RAY_ADDRESS`` or a local one by default.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    address: str | None = None

    def score(
        self, jobs: Sequence[RunCheckpoint], plan: Plan, report: Report
    ) -> Iterator[tuple[RunCheckpoint, ScoreRecord]]:
        """As :meth:`Executor.score`; reports nothing."""
        there = replace(plan, output=plan.output.resolve())
        work = [(there, replace(job, path=job.path.resolve()), self.threads) for job in jobs]
        for index, record in self.each(score_task, work):
            yield jobs[index], failed_record(plan, jobs[index]) if record is None else record

    @property
    def threads(self) -> int:
        """Of a task."""
        return max(int(self.cpus), 1)

    def each(
        self, function: Callable[..., Result], work: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Result | None]]:
        """Call a function with every tuple of arguments, each call a task of the cluster.

        Returns:
            Place in ``work`` and result, in the order in which they are done; ``None`` for a task
            whose worker was lost every time.

        Raises:
            DensescopeError: as the function raises it.
            InputError: ray is not installed.
        """
        ray = _ray()
        if not ray.is_initialized():
            ray.init(address=self.address, log_to_driver=False, configure_logging=False)
        task = ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=TRIES - 1, retry_exceptions=False
        )(function)
        lost = (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
        )
        running = {task.remote(*arguments): index for index, arguments in enumerate(work)}
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            index = running.pop(done)
            try:
                yield index, ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, DensescopeError) else error from None
            except lost:
                yield index, None


def score_task(plan: Plan, job: RunCheckpoint, threads: int) -> ScoreRecord:
    """:func:`score_job` with a number of threads, as a task of a cluster."""
    torch.set_num_threads(threads)
    return score_job(plan, job)


def _ray() -> Any:
    try:
        import ray
    except ImportError as cause:
        raise InputError("scoring on a cluster needs ray: pip install 'densescope[ray]'") from cause
    return ray
