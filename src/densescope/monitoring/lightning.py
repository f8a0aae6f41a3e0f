"""A Lightning callback around a monitor, for ``lightning.pytorch`` and ``pytorch_lightning``."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from densescope.errors import InputError
from densescope.monitoring.monitor import DenseMonitor
from densescope.monitoring.observation import TrainingStopped
from densescope.monitoring.recording import LOG

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _callback_class() -> Any:
    """``Callback`` of the package in use; trainers call hooks by name, so either will do."""
    for name in (*(name for name in PACKAGES if name in sys.modules), *PACKAGES):
        try:
            return import_module(name).Callback
        except ImportError:
            continue
    raise InputError("this callback needs Lightning: pip install 'densescope[lightning]'")


class DenseCallback(_callback_class()):  # type: ignore[misc]
    """Observes the module's backbone (its slow copy where there is one) as training goes on.

    At the end of every ``every_n_epochs``-th epoch, or after every ``every_n_steps``-th optimizer
    step; never in the sanity check or in validation. The numbers are logged by the module: all
    loggers of the trainer get them, and ``ModelCheckpoint(monitor="densescope/dse", mode="max")``
    keeps the best; give it the same ``every_n_epochs`` or ``every_n_train_steps``, as Lightning
    remembers the last number for checkpoints that fall between two observations. A failed
    observation logs NaN, which ``ModelCheckpoint`` takes for the worst. An alarm of a monitor with
    ``stop_on_alarm`` sets ``trainer.should_stop``.

    Args:
        monitor: with held-out images; called on all ranks.
        every_n_epochs: ignored where ``every_n_steps`` is given.
        every_n_steps: in steps of the optimizer (``trainer.global_step``).

    Raises:
        InputError: an interval below 1, or a monitor with an interval of its own.
    """

    def __init__(
        self, monitor: DenseMonitor, *, every_n_epochs: int = 1, every_n_steps: int | None = None
    ) -> None:
        super().__init__()
        if monitor.every != 1:
            raise InputError("give the interval to the callback and leave every=1 to the monitor")
        if min(every_n_epochs, every_n_steps or 1) < 1 or every_n_steps == 0:
            raise InputError("every_n_epochs and every_n_steps must be at least 1")
        self.monitor = monitor
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self._last: int | None = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *batch: Any, **more: Any) -> None:
        """Observe after the optimizer steps that are asked for; once where gradients add up."""
        if self.every_n_steps is None or trainer.global_step % self.every_n_steps:
            return
        if trainer.global_step not in (0, self._last):
            self._observe(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Observe after the epochs that are asked for."""
        if self.every_n_steps is None and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._observe(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The history, where no folder keeps it."""
        kept = self.monitor.recorder.history.store is not None
        return {} if kept else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint; a state that does not fit is left aside with a warning."""
        try:
            if state_dict:
                self.monitor.load_state_dict(state_dict)
        except Exception as cause:  # the training goes on
            LOG.warning("the history in the checkpoint cannot be read: %s", cause)

    def _observe(self, trainer: Any, pl_module: Any) -> None:
        self._last = trainer.global_step
        try:
            observation = self.monitor.observe(pl_module, step=trainer.global_step)
        except TrainingStopped as stop:
            observation = stop.observation
            trainer.should_stop = True
        if observation is not None:
            try:
                pl_module.log_dict(observation.for_checkpoints)
            except Exception as cause:  # the training goes on
                LOG.warning("Lightning did not take the numbers: %s; the training goes on", cause)
