"""DINO: a student learns to predict what its own moving average says of other views."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from densescope.features.augmentation import random_views
from densescope.pretraining.schedules import cosine, ramp
from densescope.pretraining.settings import PretrainSettings


class Network(nn.Module):
    """A backbone whose class token goes through a projection head."""

    def __init__(self, settings: PretrainSettings) -> None:
        import timm
        from lightly.models.modules import DINOProjectionHead

        super().__init__()
        shape = settings.backbone
        self.backbone = timm.create_model(shape.model, **shape.options, dynamic_img_size=True)
        with warnings.catch_warnings():
            # The head keeps the older weight_norm, whose weight_g and weight_v are DINO's names.
            warnings.filterwarnings("ignore", ".*weight_norm.*", FutureWarning)
            self.head = DINOProjectionHead(
                shape.dim,
                settings.head_dim,
                settings.head_bottleneck,
                settings.prototypes,
                batch_norm=settings.head_batch_norm,
            )

    def forward(self, images: Tensor) -> Tensor:
        """Logits over the prototypes, one row per image."""
        output: Tensor = self.head(self.backbone(images))
        return output


class Dino(nn.Module):
    """The networks, loss and schedules of DINO; a training loop drives it.

    Everything a run must remember beside the optimizer lies in its state dict and ``generator``.

    Source: Caron et al. 2021, arXiv 2104.14294; loss, head and moving average are lightly's.
    Deviations: the second global view is augmented like the first, no drop path, schedules in
    steps. The center starts at the mean output of the first batch instead of zero: from zero, the
    first thing a student learns is that mean. The loss averages over pairs of views.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: PretrainSettings) -> None:
        from lightly.loss import DINOLoss

        super().__init__()
        self.settings = settings
        self.student = Network(settings)
        self.teacher = Network(settings)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.criterion = DINOLoss(output_dim=settings.prototypes)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.register_buffer("mean", torch.tensor(settings.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings.std).view(3, 1, 1), persistent=False)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights that decay, then biases, norms and the like that do not."""
        trained = [p for p in self.student.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1], "decays": True},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "decays": False},
        ]

    def loss(self, images: Tensor, step: int) -> Tensor:
        """The loss of one batch of images in [0, 1], on views drawn here."""
        large, small = self._views(images)
        with torch.no_grad():
            told = self.teacher(large.flatten(0, 1))
            if step == 0:
                self.criterion.center.copy_(told.mean(0))
            told = told.chunk(len(large))
        said = self.student(large.flatten(0, 1)).chunk(len(large))
        if small is not None:
            said = said + self.student(small.flatten(0, 1)).chunk(len(small))
        start, end = self.settings.teacher_temperature
        steps = self.settings.warmup_steps
        temperature = ramp(step, steps=steps, start=start, end=end)
        loss: Tensor = self.criterion(list(told), list(said), teacher_temp=temperature)
        return loss

    def before_step(self, step: int) -> None:
        """Called with gradients at hand: the last layer waits until targets mean something."""
        if step < self.settings.frozen_head_steps:
            for parameter in self.student.head.last_layer.parameters():
                parameter.grad = None

    def after_step(self, step: int) -> None:
        """Called with new weights: the teacher follows."""
        from lightly.models.utils import update_momentum

        start, end = self.settings.teacher_momentum
        momentum = cosine(step, steps=self.settings.steps, start=start, end=end)
        with torch.no_grad():
            update_momentum(self.student, self.teacher, momentum)

    def checkpoint(self, epoch: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of DINO's ``checkpoint%04d.pth``; its ``epoch`` is one ahead of its name."""
        shape = self.settings.backbone
        # DINO wraps the teacher too where its head has batch norm, and names then begin alike.
        wrapped = "module." if self.settings.head_batch_norm else ""
        plain = asdict(self.settings) | {"arch": shape.model, "patch_size": shape.patch_size}
        return {
            "student": {f"module.{key}": value for key, value in _named(self.student).items()},
            "teacher": {f"{wrapped}{key}": value for key, value in _named(self.teacher).items()},
            "optimizer": optimizer,
            "epoch": epoch + 1,
            "args": argparse.Namespace(**plain),
            "dino_loss": self.criterion.state_dict(),
        }

    def _views(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        settings, chance = self.settings, self.generator
        size = settings.backbone.image_size
        large = random_views(
            images, views=2, size=size, settings=settings.global_views, generator=chance
        )
        if settings.local_count == 0:
            return self._normalized(large), None
        small = random_views(
            images,
            views=settings.local_count,
            size=settings.local_size,
            settings=settings.local_views,
            generator=chance,
        )
        return self._normalized(large), self._normalized(small)

    def _normalized(self, views: Tensor) -> Tensor:
        return (views - self.mean) / self.std


def _named(network: Network) -> dict[str, Tensor]:
    """State under DINO's own names: its head calls the layers before the last one ``mlp``."""
    state = network.state_dict()
    return {
        f"head.mlp.{key.removeprefix('head.layers.')}" if key.startswith("head.layers.") else key: (
            value.detach().cpu()
        )
        for key, value in state.items()
    }
