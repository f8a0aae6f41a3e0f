"""The shell between a method and Lightning's training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor

from densescope.pretraining.learner import Learner
from densescope.pretraining.optimizers import recipe_optimizer, set_rates
from densescope.pretraining.regularizers import Regularizer
from densescope.pretraining.sampling import Batches, generator_from, seed_global_generators
from densescope.pretraining.settings import PretrainSettings

Report = Callable[["TrainingLoop", int, float], None]


class TrainingLoop(lightning.LightningModule):  # type: ignore[misc]
    """Drives a learner: schedules, optimizer, clipping, and a report after every step.

    Args:
        learner: the method.
        settings: of the run.
        images: all of them, as bytes.
        report: called after every step with the finished steps and the loss.
        begin: called before the first step.
        regularizer: what is added to the loss, or ``None``.
        first: step to begin with.
        optimizer_state: what the optimizer remembers of the steps before it.
    """

    def __init__(
        self,
        learner: Learner[Any],
        settings: PretrainSettings,
        images: Tensor,
        report: Report,
        *,
        begin: Callable[[TrainingLoop], None] = lambda loop: None,
        regularizer: Regularizer | None = None,
        first: int = 0,
        optimizer_state: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.learner = learner
        self.regularizer = regularizer
        self.settings = settings
        self.images = images
        self.report = report
        self.begin = begin
        self.step = first
        self._part = 0
        self._loss = 0.0
        self._optimizer_state = optimizer_state

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The recipe's optimizer over the learner's groups, where it stood."""
        optimizer = recipe_optimizer(self.learner.parameter_groups(), self.learner.recipe)
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
            self._optimizer_state = None
        return optimizer

    def train_dataloader(self) -> Batches:
        """This device's share of the batches, from the step where the run stands."""
        return Batches(
            self.images,
            self.settings.batch_size,
            self.settings.seed,
            first=self.step,
            accumulate=self.settings.accumulate,
            rank=self.trainer.global_rank,
            ranks=self.trainer.world_size,
        )

    def on_train_start(self) -> None:
        """Call the callbacks, now that everything lies on its device."""
        self.begin(self)

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        """Set the rates of this step, and the chance of this part of it."""
        if self._part == 0:
            set_rates(self.optimizer, self.settings, self.learner.recipe, self.step)
        seed_global_generators(*self._moment())

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The loss of one batch of bytes."""
        generator = generator_from("views", *self._moment())
        outcome = self.learner.loss(batch.float() / 255, self.step, generator)
        loss = outcome.loss
        if self.regularizer is not None:
            loss = loss + self.regularizer(outcome, self.step)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the method change gradients before they are clipped."""
        self.learner.before_step(self.step)

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        """After the last part of a step let the method follow the new weights, then report."""
        self._loss += float(outputs["loss"])
        self._part += 1
        if self._part < self.settings.accumulate:
            return
        self.learner.after_step(self.step)
        if self.regularizer is not None:
            self.regularizer.after_step(self.learner)
        # Lightning divides the loss of a part by their number.
        loss, self._loss, self._part = self._loss, 0.0, 0
        self.step += 1
        if self.trainer.loggers:
            self.log("train_loss", loss)
        self.report(self, self.step, loss)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer itself, without Lightning's wrapper."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    def _moment(self) -> tuple[int, ...]:
        return self.settings.seed, self.step, self._part, int(self.trainer.global_rank)
