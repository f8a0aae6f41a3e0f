"""A monitor that watches a run of ``densescope pretrain``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densescope.monitoring.monitor import DenseMonitor
from densescope.monitoring.observation import Observation, TrainingStopped
from densescope.pretraining.learner import Learner
from densescope.pretraining.recorder import Progress


@dataclass
class PretrainingMonitor:
    """Observes the network that a sweep of the run's checkpoints would score.

    Attributes:
        monitor: with held-out images.
        every: steps between two looks; at every checkpoint by default.
        seen: the last observation, or ``None`` before the first.
        on_look: told of every observation, on the first rank.
        resumed: the checkpoint that the run goes on from, whose name the first look bears.
    """

    monitor: DenseMonitor
    every: int | None = None
    seen: Observation | None = None
    on_look: Callable[[Observation], None] | None = None
    resumed: Path | None = None

    def on_start(self, learner: Learner[Any], step: int) -> None:
        """Look at the weights a run begins or goes on with, unless that was done before."""
        if step not in {record.step for record in self.monitor.records}:
            self._look(learner, step, self.resumed)

    def after_step(self, learner: Learner[Any], progress: Progress) -> None:
        """Look when it is time."""
        due = (
            progress.checkpoint is not None
            if self.every is None
            else not (progress.step % self.every)
        )
        if due:
            self._look(learner, progress.step, progress.checkpoint)

    def on_checkpoint(self, learner: Learner[Any], progress: Progress) -> None:
        """Nothing: a look follows the step."""

    def _look(self, learner: Learner[Any], step: int, checkpoint: Path | None = None) -> None:
        network = next(iter(learner.backbones().values())).model
        try:
            seen = self.monitor.observe(network, step=step, checkpoint=checkpoint)
        except TrainingStopped as stopped:
            self._take(stopped.observation)
            raise
        if seen is not None:
            self._take(seen)

    def _take(self, seen: Observation) -> None:
        self.seen = seen
        if self.on_look is not None and self.monitor.metric.ranks.rank == 0:
            self.on_look(seen)
