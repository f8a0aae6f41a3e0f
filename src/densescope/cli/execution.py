"""Options that say which machines and processes do the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from densescope.cli import headings as h
from densescope.cli.failures import UsageError
from densescope.cli.parsing import Only, from_options, option

if TYPE_CHECKING:
    from densescope.runs.cluster import Ray
    from densescope.runs.executors import Executor
    from densescope.runs.sweep import Shard

_RAY = Only("--executor", "ray")


@Parameter(name="*", group=h.EXECUTOR)
@dataclass(frozen=True)
class ClusterOptions:
    """On which machines the work is done."""

    executor: Annotated[
        Literal["local", "ray"],
        option("Machines that do the work: this one, or a Ray cluster (found by RAY_ADDRESS)."),
        Only("--summary-only", False),
    ] = "local"
    task_cpus: Annotated[float, option("Cores of a Ray task."), _RAY] = 1.0
    task_gpus: Annotated[float, option("Share of a GPU of a Ray task."), _RAY] = 0.0

    def ray(self) -> Ray | None:
        """The cluster, if one was asked for."""
        from densescope.runs.cluster import Ray

        return None if self.executor == "local" else Ray(self.task_cpus, self.task_gpus)


@dataclass(frozen=True)
class ExecutorOptions(ClusterOptions):
    """Where the checkpoints of a sweep are scored."""

    processes: Annotated[
        int,
        option("Processes on this machine, each with its share of the cores.", least=1),
        Only("--executor", "local"),
    ] = 1
    shard: Annotated[
        str,
        option("Part of the run to score, such as 1/4 in an array job of four.", metavar="I/N"),
    ] = "1/1"

    @from_options
    def chosen(self) -> Executor:
        """The executor these options stand for."""
        from densescope.runs.executors import InProcess, Processes

        beside = InProcess() if self.processes == 1 else Processes(self.processes)
        return self.ray() or beside

    @from_options
    def part(self) -> Shard:
        """The part of the run."""
        from densescope.runs.sweep import Shard

        number, slash, count = self.shard.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise UsageError(f"--shard {self.shard!r} is not a part such as 1/4")
        return Shard(int(number), int(count))
