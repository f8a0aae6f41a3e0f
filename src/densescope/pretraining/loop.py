"""The shell between a method and Lightning's training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn

from densescope.pretraining.methods import Learner
from densescope.pretraining.schedules import cosine
from densescope.pretraining.settings import PretrainSettings

Report = Callable[["Loop", int, float], None]


class Batches:
    """Endless batches of images, each pass over them in a new order."""

    def __init__(self, images: Tensor, batch_size: int, seed: int) -> None:
        self.images = images
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[Tensor]:
        waiting = torch.empty(0, dtype=torch.int64)
        while True:
            while len(waiting) < self.batch_size:
                order = torch.randperm(len(self.images), generator=self.generator)
                waiting = torch.cat([waiting, order])
            batch, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
            yield self.images[batch]


class Loop(lightning.LightningModule):  # type: ignore[misc]
    """Drives a learner: schedules, optimizer, clipping, and a report after every step."""

    def __init__(self, learner: Learner, settings: PretrainSettings, report: Report) -> None:
        super().__init__()
        assert isinstance(learner, nn.Module)
        self.learner = learner
        self.settings = settings
        self.report = report
        self.step = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the learner's groups; rate and decay are set before every step."""
        return torch.optim.AdamW(self.learner.parameter_groups(), lr=0.0)

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        """Set the learning rate and weight decay of this step."""
        settings = self.settings
        rate = cosine(
            self.step,
            steps=settings.steps,
            start=settings.learning_rate,
            end=settings.final_learning_rate,
            warmup=settings.warmup_steps,
        )
        start, end = settings.weight_decay
        decay = cosine(self.step, steps=settings.steps, start=start, end=end)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            if group["decays"]:
                group["weight_decay"] = decay

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The loss of one batch of bytes."""
        return self.learner.loss(batch.float() / 255, self.step)

    def on_after_backward(self) -> None:
        """Let the method change gradients before they are clipped."""
        self.learner.before_step(self.step)

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        """Let the method follow the new weights, then report."""
        self.learner.after_step(self.step)
        self.step += 1
        self.report(self, self.step, float(outputs["loss"]))

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer itself, without Lightning's wrapper."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer
