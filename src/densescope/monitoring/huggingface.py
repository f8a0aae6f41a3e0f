"""A callback for the Trainer of Transformers around a monitor."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback

from densescope.errors import InputError
from densescope.monitoring.monitor import DenseMonitor
from densescope.monitoring.observation import Observation, TrainingStopped


class DenseTrainerCallback(TrainerCallback):  # type: ignore[misc]
    """Observes the model (its slow copy where there is one) as the Trainer trains it.

    After every ``every_n_steps``-th step, or at every evaluation. The numbers of the step join the
    metrics of an evaluation as ``eval_densescope/...``: ``metric_for_best_model="densescope/dse"``
    decides which checkpoint is the best. A failed observation counts as minus infinity there.
    The Trainer's own reporters get nothing from a callback: give the monitor its loggers. An alarm
    of a monitor with ``stop_on_alarm`` sets ``control.should_training_stop``.

    Args:
        monitor: with held-out images; called on all ranks.
        every_n_steps: ``None`` for every evaluation.

    Raises:
        InputError: an interval below 1, or a monitor with an interval of its own.
    """

    def __init__(self, monitor: DenseMonitor, *, every_n_steps: int | None = None) -> None:
        if monitor.every != 1:
            raise InputError("give the interval to the callback and leave every=1 to the monitor")
        if every_n_steps is not None and every_n_steps < 1:
            raise InputError("every_n_steps must be at least 1")
        self.monitor = monitor
        self.every_n_steps = every_n_steps
        self._last: Observation | None = None

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **more: Any
    ) -> None:
        """Observe after the steps that are asked for."""
        if self.every_n_steps is not None and state.global_step % self.every_n_steps == 0:
            self._observe(model, state, control)

    def on_evaluate(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        metrics: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Observe if this step was not, and add the numbers to the metrics of the evaluation."""
        if self._last is None or self._last.step != state.global_step:
            self._observe(model, state, control)
        if metrics is not None and self._last is not None:
            numbers = self._last.for_checkpoints
            worst = {name: -math.inf for name, value in numbers.items() if math.isnan(value)}
            metrics.update({f"eval_{name}": value for name, value in (numbers | worst).items()})

    def _observe(self, model: Any, state: Any, control: Any) -> None:
        try:
            self._last = self.monitor.observe(model, step=state.global_step)
        except TrainingStopped as stop:
            self._last = stop.observation
            control.should_training_stop = True
