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
        every: steps between two observations; at every checkpoint by default.
        observation: the last one, or ``None`` before the first.
        on_observation: called with every observation, on the first rank.
        resumed: the checkpoint that the run goes on from, whose name the first observation gets.
    """

    monitor: DenseMonitor
    every: int | None = None
    observation: Observation | None = None
    on_observation: Callable[[Observation], None] | None = None
    resumed: Path | None = None

    def on_start(self, learner: Learner[Any], step: int) -> None:
        """Observe the weights a run begins or goes on with, unless that was done before."""
        if step not in {record.step for record in self.monitor.records}:
            self._observe(learner, step, self.resumed)

    def after_step(self, learner: Learner[Any], progress: Progress) -> None:
        """Observe when the step is due."""
        due = (
            progress.checkpoint is not None
            if self.every is None
            else not (progress.step % self.every)
        )
        if due:
            self._observe(learner, progress.step, progress.checkpoint)

    def on_checkpoint(self, learner: Learner[Any], progress: Progress) -> None:
        """Nothing: the observation follows the step."""

    def _observe(self, learner: Learner[Any], step: int, checkpoint: Path | None = None) -> None:
        network = next(iter(learner.backbones().values())).model
        try:
            observation = self.monitor.observe(network, step=step, checkpoint=checkpoint)
        except TrainingStopped as stopped:
            self._take(stopped.observation)
            raise
        if observation is not None:
            self._take(observation)

    def _take(self, observation: Observation) -> None:
        self.observation = observation
        if self.on_observation is not None and self.monitor.metric.ranks.rank == 0:
            self.on_observation(observation)
